"""The language model in Equinox, of its own layers; needs the extra `bench`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx  # pyright: ignore[reportMissingImports]  # an extra
import jax
import jax.numpy as jnp

from benchmarks.by_hand import cross_entropy, rotate
from benchmarks.language_model import Sizes


class Block(eqx.Module):
    """A layer, of one sequence."""

    norm_1: eqx.nn.LayerNorm
    norm_2: eqx.nn.LayerNorm
    qkv: eqx.nn.Linear
    post: eqx.nn.Linear
    ffn_1: eqx.nn.Linear
    ffn_2: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, sizes: Sizes, source: Any) -> None:
        key = jax.random.PRNGKey(0)
        width, hidden = sizes.width, sizes.hidden
        self.heads = sizes.heads
        self.norm_1 = _norm(width, source["norm_1"])
        self.norm_2 = _norm(width, source["norm_2"])
        self.qkv = _linear(width, 3 * width, source["qkv"], None, key)
        self.post = _linear(width, width, source["post"], None, key)
        self.ffn_1 = _linear(width, hidden, source["w_1"], source["b_1"], key)
        self.ffn_2 = _linear(hidden, width, source["w_2"], source["b_2"], key)

    def __call__(self, x: jax.Array) -> jax.Array:
        heads = jax.vmap(self.qkv)(jax.vmap(self.norm_1)(x))
        heads = heads.reshape(x.shape[0], 3, self.heads, -1)  # [T, 3, N, H]
        position = jnp.arange(x.shape[0])
        query, key = (rotate(heads[None, :, part], position)[0] for part in (0, 1))
        mask = position[:, None] >= position[None]
        attend = jax.vmap(
            lambda query, key, value: eqx.nn._attention.dot_product_attention(
                query, key, value, mask
            ),
            in_axes=1,
            out_axes=1,
        )
        x = x + jax.vmap(self.post)(attend(query, key, heads[:, 2]).reshape(x.shape))
        hidden = jax.nn.relu(jax.vmap(self.ffn_1)(jax.vmap(self.norm_2)(x)))
        return x + jax.vmap(self.ffn_2)(hidden)


class LanguageModel(eqx.Module):
    """Tokens [B, T + 1] to the loss of predicting them."""

    embedding: eqx.nn.Embedding
    layers: list[Block]
    norm: eqx.nn.LayerNorm
    output_bias: jax.Array

    def __init__(self, sizes: Sizes, weights: Any) -> None:
        self.embedding = eqx.nn.Embedding(weight=weights["embedding"])
        self.layers = [Block(sizes, source) for source in weights["layers"]]
        self.norm = _norm(sizes.width, weights["norm"])
        self.output_bias = weights["output_bias"]

    def __call__(self, ids: jax.Array) -> jax.Array:
        def logits(tokens: jax.Array) -> jax.Array:
            x = jax.vmap(self.embedding)(tokens)
            for layer in self.layers:
                x = layer(x)
            x = jax.vmap(self.norm)(x)
            return x @ self.embedding.weight.T + self.output_bias

        return cross_entropy(jax.vmap(logits)(ids[:, :-1]), ids[:, 1:])


def _norm(width: int, source: Any) -> eqx.nn.LayerNorm:
    norm = eqx.nn.LayerNorm(width, eps=1e-6)
    return eqx.tree_at(lambda n: (n.weight, n.bias), norm, (source["scale"], source["bias"]))


def _linear(
    inputs: int, outputs: int, weight: jax.Array, bias: jax.Array | None, key: jax.Array
) -> eqx.nn.Linear:
    linear = eqx.nn.Linear(inputs, outputs, use_bias=bias is not None, key=key)
    linear = eqx.tree_at(lambda n: n.weight, linear, weight.T)
    return linear if bias is None else eqx.tree_at(lambda n: n.bias, linear, bias)


def make(weights: Any, sizes: Sizes) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """The loss of parameters and tokens, and the parameters, from the weights of `by_hand`."""
    params, static = eqx.partition(LanguageModel(sizes, weights), eqx.is_array)
    return lambda params, ids: eqx.combine(params, static)(ids), params

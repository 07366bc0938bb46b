"""The language model in Flax nnx, of its own layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.by_hand import cross_entropy, rotate
from benchmarks.language_model import Sizes


class Block(nnx.Module):
    """A layer."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        width, heads = sizes.width, (sizes.heads, sizes.head_width)
        self.norm_1, self.norm_2 = _norm(width, rngs), _norm(width, rngs)
        self.qkv = nnx.LinearGeneral(width, (3, *heads), use_bias=False, rngs=rngs)
        self.post = nnx.LinearGeneral(heads, width, axis=(-2, -1), use_bias=False, rngs=rngs)
        self.ffn_1 = nnx.Linear(width, sizes.hidden, rngs=rngs)
        self.ffn_2 = nnx.Linear(sizes.hidden, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        query, key, value = jnp.moveaxis(self.qkv(self.norm_1(x)), 2, 0)
        position = jnp.arange(x.shape[1])
        context = nnx.dot_product_attention(
            rotate(query, position),
            rotate(key, position),
            value,
            mask=nnx.make_causal_mask(x[..., 0]),
        )
        x = x + self.post(context)
        return x + self.ffn_2(nnx.relu(self.ffn_1(self.norm_2(x))))


class LanguageModel(nnx.Module):
    """Tokens [B, T + 1] to the loss of predicting them."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(sizes.vocabulary, sizes.width, rngs=rngs)
        self.layers = nnx.List([Block(sizes, rngs) for _ in range(sizes.layers)])
        self.norm = _norm(sizes.width, rngs)
        self.output_bias = nnx.Param(jnp.zeros(sizes.vocabulary))

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.embedding(ids[:, :-1])
        for layer in self.layers:
            x = layer(x)
        return cross_entropy(self.embedding.attend(self.norm(x)) + self.output_bias, ids[:, 1:])


def _norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


def make(weights: Any, sizes: Sizes) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """The loss of parameters and tokens, and the parameters, from the weights of `by_hand`."""
    model = LanguageModel(sizes, nnx.Rngs(0))
    model.embedding.embedding[...] = weights["embedding"]
    model.output_bias[...] = weights["output_bias"]
    _set(model.norm, **weights["norm"])
    for layer, source in zip(model.layers, weights["layers"], strict=True):
        _set(layer.norm_1, **source["norm_1"])
        _set(layer.norm_2, **source["norm_2"])
        _set(layer.qkv, kernel=source["qkv"].reshape(layer.qkv.kernel.shape))
        _set(layer.post, kernel=source["post"].reshape(layer.post.kernel.shape))
        _set(layer.ffn_1, kernel=source["w_1"], bias=source["b_1"])
        _set(layer.ffn_2, kernel=source["w_2"], bias=source["b_2"])
    graph, params = nnx.split(model)
    return lambda params, ids: nnx.merge(graph, params)(ids), params


def _set(module: Any, **values: jax.Array) -> None:
    for name, value in values.items():
        getattr(module, name)[...] = value

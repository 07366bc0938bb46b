"""The language model in Flax linen, of its own layers, as its examples write it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.by_hand import cross_entropy, rotate
from benchmarks.language_model import Sizes


class Attention(nn.Module):
    """Causal self-attention with rotary positions, on what is already normalised."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads = (3, self.sizes.heads, self.sizes.head_width)
        query, key, value = jnp.moveaxis(
            nn.DenseGeneral(heads, use_bias=False, name="qkv")(x), 2, 0
        )
        position = jnp.arange(x.shape[1])
        mask = nn.make_causal_mask(x[..., 0])
        context = nn.dot_product_attention(
            rotate(query, position), rotate(key, position), value, mask=mask
        )
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), use_bias=False, name="post")(context)


class Block(nn.Module):
    """A layer."""

    sizes: Sizes

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = lambda name: nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name=name)  # noqa: E731
        x = x + Attention(self.sizes, name="attention")(norm("norm_1")(x))
        h = nn.relu(nn.Dense(self.sizes.hidden, name="ffn_1")(norm("norm_2")(x)))
        return x + nn.Dense(x.shape[-1], name="ffn_2")(h)


class LanguageModel(nn.Module):
    """Tokens [B, T + 1] to the loss of predicting them."""

    sizes: Sizes

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        embedding = nn.Embed(self.sizes.vocabulary, self.sizes.width, name="embedding")
        x = embedding(ids[:, :-1])
        for index in range(self.sizes.layers):
            x = Block(self.sizes, name=f"layers_{index}")(x)
        x = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name="norm")(x)
        bias = self.param("output_bias", nn.initializers.zeros, (self.sizes.vocabulary,))
        return cross_entropy(embedding.attend(x) + bias, ids[:, 1:])


def weights_of(weights: Any, sizes: Sizes) -> dict[str, Any]:
    """Parameters of the module, from the weights of `by_hand`."""
    heads = (sizes.heads, sizes.head_width)

    def layer(source: Any) -> dict[str, Any]:
        return {
            "norm_1": source["norm_1"],
            "norm_2": source["norm_2"],
            "attention": {
                "qkv": {"kernel": source["qkv"].reshape(sizes.width, 3, *heads)},
                "post": {"kernel": source["post"].reshape(*heads, sizes.width)},
            },
            "ffn_1": {"kernel": source["w_1"], "bias": source["b_1"]},
            "ffn_2": {"kernel": source["w_2"], "bias": source["b_2"]},
        }

    return {
        "embedding": {"embedding": weights["embedding"]},
        "output_bias": weights["output_bias"],
        "norm": weights["norm"],
        **{f"layers_{index}": layer(source) for index, source in enumerate(weights["layers"])},
    }


def loss_of(sizes: Sizes) -> Callable[[Any, jax.Array], jax.Array]:
    """The loss of parameters and tokens, [B, T + 1]."""
    model = LanguageModel(sizes)

    def loss(params: Any, ids: jax.Array) -> Any:
        return model.apply({"params": params}, ids)

    return loss

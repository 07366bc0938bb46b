"""Local attention with a bias of the logits by distance."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from praxis import base_layer
from praxis.layers.attention.attend import Attended
from praxis.layers.attention.hooks import Mask
from praxis.layers.attention.local import LocalSelfAttention
from praxis.layers.attention.relative import (
    add_content_bias,
    create_relative_positional_embedding,
    relative_logits,
)

WeightHParams = base_layer.WeightHParams


class LocalSelfAttentionXL(LocalSelfAttention):
    """Local attention with the logits of `DotProductAttentionXL`.

    Attributes:
      rel_pos_emb_dim: Width of the embedding of a distance; at least 1. Required.

    Variables:
      as in `DotProductAttentionXL`

    Raises:
      ValueError: during setup, if `rel_pos_emb_dim` is missing.
    """

    rel_pos_emb_dim: int = 0

    def setup(self) -> None:
        super().setup()
        create_relative_positional_embedding(self)

    def _bias_by_distance(
        self, query: Float[Array, "B T N H"], ahead: Int[Array, " S"]
    ) -> Float[Array, "_ N T S"] | None:
        return relative_logits(self, query, ahead)

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S N H"],
        value: Float[Array, "B S N H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        return super()._attend(add_content_bias(self, query), key, value, atten_mask, bias)

    def _attend_to_window(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b S K H"],
        value: Float[Array, "b S K H"],
        keep: Bool[Array, "_ _ T S"],
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        return super()._attend_to_window(add_content_bias(self, query), key, value, keep, bias)


class _BlockBiased(LocalSelfAttention):
    """Local attention with a bias whose constants are those of a block."""

    def _needs_context(self) -> bool:
        return True


class LocalSelfAttentionRelativeBias(_BlockBiased):
    """Local attention that adds to the logits a learned number for each head and distance.

    Shapes: N is `num_heads`; W, l and r are block size, left and right context.

    Variables:
      pos_emb_compressed: [N, 2 W + l + r - 2]; place (d + W + l - 3) modulo its length is for keys
        d places after the query.
      and those of `DotProductAttention`
    """

    def setup(self) -> None:
        super().setup()
        sizes = self._block_sizes
        shape = [self.num_heads, sizes.block_size + sizes.width - 1]
        self.create_variable("pos_emb_compressed", WeightHParams(shape=shape))

    def _bias_by_distance(
        self, query: Float[Array, "B T N H"], ahead: Int[Array, " S"]
    ) -> Float[Array, "_ N T S"] | None:
        bias, sizes = self.theta.pos_emb_compressed, self._block_sizes
        self.add_summary("pos_emb_compressed", bias)
        first = sizes.left_context + sizes.block_size - 3
        place = (_distances(query, ahead) + first) % bias.shape[1]
        return jnp.take(bias, place, axis=1)[jnp.newaxis]


class LocalSelfAttentionAlibi(_BlockBiased):
    """Local attention whose logits fall with the distance, at a slope that depends on the head.

    Adds `slope * (d + W + l - 2)` for a key d places after the query, with block size W and left
    context l: Press et al., "Train Short, Test Long", 2021, arXiv:2108.12409. There are no
    variables for it. Keys after the query gain by it: it is meant for `right_context` = 0.
    """

    def _bias_by_distance(
        self, query: Float[Array, "B T N H"], ahead: Int[Array, " S"]
    ) -> Float[Array, "_ N T S"] | None:
        sizes = self._block_sizes
        # float32, like the softmax: bfloat16 would round near places to the same number.
        slopes = jnp.asarray(alibi_slopes(self.num_heads), jnp.float32)
        place = _distances(query, ahead) + sizes.left_context + sizes.block_size - 2
        return (slopes[:, jnp.newaxis, jnp.newaxis] * place[jnp.newaxis])[jnp.newaxis]


def alibi_slopes(num_heads: int) -> Float[np.ndarray, " N"]:
    """Slopes of ALiBi for each head: 2^(-8 n / N) for n = 1 to N, if N is a power of two.

    For other N: those of the largest power of two below N, followed by every second one, from the
    first on, of twice that power; as in the code of Press et al., 2021, arXiv:2108.12409.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8.0 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-8.0 * np.arange(1, 2 * power, 2) / (2 * power))
    return np.concatenate([slopes, between[: num_heads - power]])


def _distances(query: Float[Array, "B T N H"], ahead: Int[Array, " S"]) -> Int[Array, "T S"]:
    """Position of each key minus that of each query."""
    return ahead[jnp.newaxis] - jnp.arange(query.shape[1])[:, jnp.newaxis]

"""Prefixes of unequal lengths, aligned to the right, so that their continuations start together."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from praxis.decoding.state import right_align_tensors


def right_align_prefix_ids(
    prefix_ids: Int[Array, "B P"], prefix_lengths: Int[Array, " B"], paddings_dtype: DTypeLike
) -> tuple[Int[Array, "B P"], Float[Array, "B P"]]:
    """Moves prefixes to the end of their rows.

    Args:
      prefix_ids: [B, P], prefixes at the front.
      prefix_lengths: [B].
      paddings_dtype: Of the paddings.

    Returns:
      Tokens, with zeros before the prefixes, and paddings, 1 there; [B, P].
    """
    first = prefix_ids.shape[1] - prefix_lengths[:, jnp.newaxis]  # [B, 1]
    is_padding = jnp.arange(prefix_ids.shape[1])[jnp.newaxis] < first
    return right_align_tensors(prefix_ids, prefix_lengths), is_padding.astype(paddings_dtype)


def right_align_segment_position(lengths: Int[Array, " B"], max_length: int) -> Int[Array, "B P"]:
    """Positions of tokens that are aligned to the right: 0, 1, .. at the end, 0 in the padding."""
    positions = jnp.arange(max_length)[jnp.newaxis] - (max_length - lengths[:, jnp.newaxis])
    return jnp.maximum(positions, 0).astype(jnp.int32)


def left_aligned(x: Shaped[Array, "B S"], lengths: Int[Array, " B"]) -> Shaped[Array, "B S"]:
    """Zeros what is behind the first `lengths` entries of each row."""
    inside = jnp.arange(x.shape[1])[jnp.newaxis] < lengths[:, jnp.newaxis]
    return jnp.where(inside, x, jnp.zeros([], x.dtype))

"""Attention masks that are added to the logits: 0 attends, a large negative number does not.

Masks are [B, 1, T, S]: B or 1, and T or 1, where all examples or all queries share them. What reads
a mask also takes booleans, True attends.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import py_utils


def mask_from_keep(keep: Bool[Array, "..."], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
    """0 where `keep` is true, the large negative number of `dtype` elsewhere."""
    return jnp.where(keep, jnp.zeros([], dtype), py_utils.get_large_negative_number(dtype))


def keep_from_mask(mask: Shaped[Array, "..."]) -> Bool[Array, "..."]:
    """Where a mask attends: nearer to 0 than to the large negative number of its own dtype."""
    if mask.dtype == jnp.bool:
        return mask
    return mask >= py_utils.get_large_negative_number(mask.dtype) * jnp.asarray(0.5, mask.dtype)


def causal_mask(input_t: Shaped[Array, "B T D"]) -> Float[Array, "1 1 T T"]:
    """Lets each query see the keys up to itself.

    Args:
      input_t: [B, T, D], read for T and the dtype only.

    Returns:
      [1, 1, T, T], in the dtype of `input_t`.

    Raises:
      TypeError: if `input_t` is not floating.
    """
    if not jnp.issubdtype(input_t.dtype, jnp.floating):
        raise TypeError(
            f"causal_mask: input_t has dtype {input_t.dtype}, expected a floating one, which "
            "becomes that of the mask."
        )
    position = jnp.arange(input_t.shape[1])
    keep = position[jnp.newaxis, :] <= position[:, jnp.newaxis]  # [T, T]
    return mask_from_keep(keep, input_t.dtype)[jnp.newaxis, jnp.newaxis]


def segment_mask(
    segment_ids: Int[Array, "B T"],
    source_segment_ids: Int[Array, "B S"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B 1 T _"]:
    """Lets queries see the keys of their own segment, in packed rows.

    Args:
      segment_ids: [B, T], of the queries.
      source_segment_ids: [B, S], of the keys; None takes those of the queries.
      dtype: Of the mask.

    Returns:
      [B, 1, T, S].
    """
    if source_segment_ids is None:
        source_segment_ids = segment_ids
    keep = segment_ids[:, :, jnp.newaxis] == source_segment_ids[:, jnp.newaxis, :]
    return mask_from_keep(keep, dtype)[:, jnp.newaxis]


def causal_segment_mask(
    segment_ids: Int[Array, "B T"],
    dtype: DTypeLike = jnp.float32,
    causal_attention_mask: Shaped[Array, "B T"] | None = None,
) -> Float[Array, "B 1 T T"]:
    """Lets queries see the keys of their segment up to themselves, and all of a prefix.

    Args:
      segment_ids: [B, T].
      dtype: Of the mask.
      causal_attention_mask: [B, T], by key: 0 marks a prefix that every query of the segment sees,
        1 the rest. None: there is no prefix.

    Returns:
      [B, 1, T, T].
    """
    position = jnp.arange(segment_ids.shape[1])
    seen = (position[jnp.newaxis, :] <= position[:, jnp.newaxis])[jnp.newaxis]  # [1, T, T]
    if causal_attention_mask is not None:
        seen = seen | (causal_attention_mask == 0)[:, jnp.newaxis, :]
    keep = seen & (segment_ids[:, :, jnp.newaxis] == segment_ids[:, jnp.newaxis, :])
    return mask_from_keep(keep, dtype)[:, jnp.newaxis]


def convert_paddings_to_mask(
    paddings: Shaped[Array, "B T"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "B 1 1 T"]:
    """Hides padded keys.

    Args:
      paddings: [B, T], 1 marks padding.
      dtype: Of the mask.

    Returns:
      [B, 1, 1, T].
    """
    negative = py_utils.get_large_negative_number(dtype)
    return paddings.astype(dtype)[:, jnp.newaxis, jnp.newaxis, :] * negative


def merge_masks(a: Shaped[Array, "..."], b: Shaped[Array, "..."]) -> Float[Array, "_ 1 _ S"]:
    """Hides what either mask hides.

    If only one of them has a row for each query, the other one, by key, also hides the queries of
    hidden keys: a padded query sees nothing. That needs T = S.

    Args:
      a: [B, 1, T, S], with 1 for B or T where these share it. Additive, or booleans with True for
        attending.
      b: As `a`.

    Returns:
      [B, 1, T, S], additive.

    Raises:
      ValueError: if the shapes do not go together.
    """
    shapes = f"a has shape {a.shape}, b has shape {b.shape}"
    if a.ndim != 4 or b.ndim != 4 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"merge_masks: {shapes}, expected [B, 1, T, S] with the same S.")
    a, b = _match_bool(a, b), _match_bool(b, a)
    target_len = max(a.shape[2], b.shape[2])
    if a.shape[2] != b.shape[2] and target_len != a.shape[-1]:
        raise ValueError(
            f"merge_masks: {shapes}. A mask by key (T = 1) can be merged with one for each query "
            "only if there are as many queries as keys."
        )
    a, b = (_by_query(mask) if mask.shape[2] < target_len else mask for mask in (a, b))
    if a.shape[1:] != b.shape[1:] or (
        a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])
    ):
        raise ValueError(f"merge_masks: {shapes}, expected the same shape but for a size of 1.")
    return jnp.minimum(a, b)


def _match_bool(mask: Shaped[Array, "..."], other: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """An additive form of a mask, in the dtype of the other one if it is boolean."""
    if mask.dtype != jnp.bool:
        return mask
    return mask_from_keep(mask, jnp.float32 if other.dtype == jnp.bool else other.dtype)


def _by_query(key_mask: Float[Array, "B 1 1 S"]) -> Float[Array, "B 1 S S"]:
    """Hides the queries of hidden keys too."""
    return jnp.minimum(jnp.swapaxes(key_mask, 2, 3), key_mask)


def limited_context_mask(
    left_context: int | None,
    right_context: int | None,
    time_size: int,
    dtype: DTypeLike = jnp.float32,
    column_time_size: int | None = None,
) -> Float[Array, "T S"]:
    """Lets query r see the keys c with r - left_context < c <= r + right_context.

    Args:
      left_context: Keys up to the query itself, which counts as one; None is unlimited.
      right_context: Keys after the query; None is unlimited.
      time_size: T, queries.
      dtype: Of the mask.
      column_time_size: S, keys; None takes T.

    Returns:
      [T, S].
    """
    source_len = time_size if column_time_size is None else column_time_size
    ahead = jnp.arange(source_len)[jnp.newaxis, :] - jnp.arange(time_size)[:, jnp.newaxis]
    keep = jnp.ones(ahead.shape, jnp.bool)
    if left_context is not None:
        keep &= ahead > -left_context
    if right_context is not None:
        keep &= ahead <= right_context
    return mask_from_keep(keep, dtype)

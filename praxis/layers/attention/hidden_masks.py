"""Masks of grouped-query attention, where True (or any number but 0) hides, and what it applies.

The masks of `masks` are the other way round. Since their hidden places are not 0, grouped-query
attention takes these too.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import py_utils
from praxis.layers.embedding.rotary import rotate_by_position


def causal_mask(seqlen: int) -> Bool[Array, "1 1 T T"]:
    """Hides the keys after each query.

    Args:
      seqlen: T.
    """
    position = jnp.arange(seqlen)
    later = position[jnp.newaxis, :] > position[:, jnp.newaxis]
    return later[jnp.newaxis, jnp.newaxis]


def segment_mask(
    segment_ids: Int[Array, "B T"], src_segment_ids: Int[Array, "B S"] | None = None
) -> Bool[Array, "B 1 T _"]:
    """Hides the keys of other segments, in packed rows.

    Args:
      segment_ids: [B, T], of the queries.
      src_segment_ids: [B, S], of the keys; None takes those of the queries.

    Returns:
      [B, 1, T, S].
    """
    if src_segment_ids is None:
        src_segment_ids = segment_ids
    other = segment_ids[:, :, jnp.newaxis] != src_segment_ids[:, jnp.newaxis, :]
    return other[:, jnp.newaxis]


def attention_mask(segment_ids: Int[Array, "B T"]) -> Bool[Array, "B 1 T T"]:
    """Hides the keys of other segments, and those after each query.

    Args:
      segment_ids: [B, T].
    """
    return segment_mask(segment_ids) | causal_mask(segment_ids.shape[1])


def padding_mask(paddings: Shaped[Array, "B T"]) -> Shaped[Array, "B 1 1 T"]:
    """Hides padded keys.

    Args:
      paddings: [B, T], 1 marks padding.

    Returns:
      [B, 1, 1, T], in the dtype of `paddings`.
    """
    return paddings[:, jnp.newaxis, jnp.newaxis]


def apply_mask(
    logits: Float[Array, "B ..."], atten_mask: Shaped[Array, "_ ..."]
) -> Float[Array, "B ..."]:
    """Replaces hidden logits by the large negative number of their dtype.

    Args:
      logits: [B, N, T, S], or [B, K, G, T, S].
      atten_mask: [B, 1, T, S], with 1 for a size where it is shared.
    """
    missing = logits.ndim - atten_mask.ndim
    mask = jnp.expand_dims(atten_mask, tuple(range(1, 1 + missing)))
    negative = py_utils.get_large_negative_number(logits.dtype)
    return jnp.where(mask.astype(jnp.bool), negative, logits)


def apply_rope(
    inputs: Float[Array, "B S *H"],
    min_timescale: int | float,
    max_timescale: int | float,
    position: Shaped[Array, "_ S"] | None = None,
) -> Float[Array, "B S *H"]:
    """Rotates pairs of features by position, see `rotate_by_position`.

    Args:
      inputs: [B, S, ..., H], H even.
      min_timescale: Period of the first pair over 2 pi, tokens.
      max_timescale: Period that a pair after the last would have, over 2 pi, tokens.
      position: [B, S], or 1 for B, tokens; None: 0 to S - 1.

    Returns:
      [B, S, ..., H], in the dtype of the inputs.
    """
    if position is None:
        position = jnp.arange(inputs.shape[1])[jnp.newaxis]
    position = jnp.expand_dims(position, tuple(range(2, inputs.ndim - 1)))
    rotated = rotate_by_position(
        inputs, position, min_timescale=min_timescale, max_timescale=max_timescale
    )
    return rotated.astype(inputs.dtype)


def apply_dropout(
    x: Float[Array, "..."],
    prng_key: Array,
    dropout_prob: float,
    broadcast_dims: Sequence[int] = (),
) -> Float[Array, "..."]:
    """Sets elements to 0 at random, and scales the others so that the mean stays.

    Args:
      x: Any array.
      prng_key: A random key.
      dropout_prob: Probability of dropping, at least 0 and below 1.
      broadcast_dims: Axes along which all elements are dropped or kept together.
    """
    if dropout_prob == 0.0:
        return x
    shared = {axis % x.ndim for axis in broadcast_dims}
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    keep_prob = 1.0 - dropout_prob
    keep = jax.random.bernoulli(prng_key, keep_prob, shape)
    return jnp.where(keep, x / keep_prob, jnp.zeros([], x.dtype))

"""Decoding caches: writes in place, and storage in a narrower dtype."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Int8, Shaped

TimeStep = int | Int[Array, ""]

# What is appended to the name of an int8 state for the name of its scales.
SCALE_SUFFIX = "_scale"


class QuantizedVectors(NamedTuple):
    """Vectors as int8 numbers with one scale each: `values * scale`.

    Attributes:
      values: [..., H], -127 to 127.
      scale: [..., 1], floating.
    """

    values: Int8[Array, "..."]
    scale: Float[Array, "..."]


def quantize_vectors(x: Float[Array, "..."]) -> QuantizedVectors:
    """Rounds each vector, [..., H], to 255 steps between minus and plus its largest element."""
    largest = jnp.max(jnp.abs(x.astype(jnp.float32)), axis=-1, keepdims=True)
    scale = jnp.where(largest > 0.0, largest / 127.0, jnp.ones_like(largest))
    values = jnp.round(x.astype(jnp.float32) / scale).astype(jnp.int8)
    return QuantizedVectors(values, scale)


def dequantize_vectors(
    values: Int8[Array, "..."], scale: Float[Array, "..."], dtype: DTypeLike
) -> Float[Array, "..."]:
    """The numbers that `quantize_vectors` rounded, [..., H]."""
    return (values.astype(jnp.float32) * scale).astype(dtype)


def is_cache_dtype(dtype: DTypeLike | None) -> bool:
    """Whether a cache can be stored as `dtype`: None, a floating dtype or int8."""
    if dtype is None:
        return True
    return jnp.dtype(dtype) == jnp.int8 or jnp.issubdtype(jnp.dtype(dtype), jnp.floating)


def encode_state(
    name: str, value: Float[Array, "..."], dtype: DTypeLike | None
) -> dict[str, Shaped[Array, "..."]]:
    """The arrays that store a state, by name.

    Args:
      name: Of the state.
      value: [..., H].
      dtype: None stores `value` as it is; int8 stores a scale for each vector too, [..., 1], under
        the name with `SCALE_SUFFIX`.
    """
    if dtype is None:
        return {name: value}
    if jnp.dtype(dtype) == jnp.int8:
        quantized = quantize_vectors(value)
        return {name: quantized.values, name + SCALE_SUFFIX: quantized.scale}
    return {name: value.astype(dtype)}


def decode_state(
    stored: Shaped[Array, "..."], scale: Float[Array, "..."] | None, dtype: DTypeLike
) -> Float[Array, "..."]:
    """A state as attention reads it.

    Args:
      stored: [..., H].
      scale: [..., 1], of an int8 state; else None.
      dtype: Of the result.
    """
    if scale is not None:
        return dequantize_vectors(stored, scale, dtype)
    return stored.astype(dtype)


def write_steps(
    state: Shaped[Array, "..."], value: Shaped[Array, "..."], time_step: TimeStep, time_dim: int
) -> Shaped[Array, "..."]:
    """Writes one step, or several, into a cache.

    Inside jit with a donated or loop-carried cache, nothing but the steps is copied.

    Args:
      state: The cache, with a time axis.
      value: One step, without the time axis; or a block of steps, with it.
      time_step: Where the first step goes. One that is traced and too large is moved back so far
        that the block fits.
      time_dim: The time axis of `state`.

    Returns:
      The new cache, in the dtype of the old one.

    Raises:
      ValueError: if the shapes do not go together, or a known `time_step` is out of range.
    """
    block = jnp.expand_dims(value, time_dim) if value.ndim == state.ndim - 1 else value
    want = (*state.shape[:time_dim], *state.shape[time_dim + 1 :])
    have = (*block.shape[:time_dim], *block.shape[time_dim + 1 :])
    if block.ndim != state.ndim or want != have:
        raise ValueError(
            f"write_steps: value has shape {value.shape}, but the cache has shape {state.shape} "
            f"with time on axis {time_dim}. Expected one step, or a block of steps, of that shape."
        )
    last_start = state.shape[time_dim] - block.shape[time_dim]
    if isinstance(time_step, int) and not 0 <= time_step <= last_start:
        raise ValueError(
            f"write_steps: time_step is {time_step}, but the cache has room for "
            f"{state.shape[time_dim]} steps and the value has {block.shape[time_dim]}. "
            "Make the cache longer, e.g. with transform_decode_state."
        )
    return lax.dynamic_update_slice_in_dim(state, block.astype(state.dtype), time_step, time_dim)

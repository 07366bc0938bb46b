"""Moments of optimizers in few bits."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

_LEVELS = {jnp.dtype(jnp.int8): 127.0, jnp.dtype(jnp.int16): 32767.0}


def is_quantized_dtype(dtype: DTypeLike) -> bool:
    """Whether `to_quantized` makes arrays of this type."""
    return jnp.dtype(dtype) in _LEVELS


def to_quantized(
    fvalue: Float[Array, "..."], quantized_dtype: DTypeLike
) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Rounds to integers, with one scale for all values along the first axis.

    Args:
      fvalue: what to store, [N, ...].
      quantized_dtype: int8 or int16.

    Returns:
      (integers [N, ...], the size of one of their steps [...]).

    Raises:
      ValueError: for a scalar and for other types.
    """
    levels = _LEVELS.get(jnp.dtype(quantized_dtype))
    if levels is None or fvalue.ndim < 1:
        raise ValueError(
            f"to_quantized: got an array of shape {fvalue.shape} for {jnp.dtype(quantized_dtype)}, "
            f"expected rank 1 or more and int8 or int16. Keep a scalar as float32."
        )
    bucket_size = jnp.max(jnp.abs(fvalue), axis=0) / levels
    steps = jnp.where(bucket_size > 0.0, bucket_size, jnp.ones_like(bucket_size))
    quantized = jnp.round(fvalue / jnp.expand_dims(steps, 0))
    return quantized.astype(quantized_dtype), bucket_size


def to_float(
    quantized: Int[Array, " N *rest"], bucket_size: Float[Array, "*rest"]
) -> Float[Array, " N *rest"]:
    """The values that `to_quantized` has rounded."""
    bucket_size = jnp.expand_dims(bucket_size, 0)
    return quantized.astype(bucket_size.dtype) * bucket_size

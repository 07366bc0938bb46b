"""Writes of decoding caches, in place."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Shaped

TimeStep = int | Int[Array, ""]


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

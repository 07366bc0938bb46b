"""Mean and variance over the positions that are not padded."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis import base_layer


def widen(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Casts to float32 unless the dtype is that or wider: sums of bfloat16 lose too much."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def compute_moments(
    inputs: Float[Array, "..."],
    padding: Shaped[Array, "..."] | None,
    reduce_over_dims: Sequence[int],
    cumulative_axis: int | None = None,
    keepdims: bool = False,
    *,
    sync_replicas: bool = True,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Computes mean and biased variance over the positions that are not padded.

    Args:
      inputs: The array to reduce.
      padding: 1 marks padding; of the rank of `inputs`, with size 1 where it broadcasts. None
        means that nothing is padded.
      reduce_over_dims: The axes to reduce.
      cumulative_axis: An axis, not among the reduced ones, along which each position sees the
        positions up to itself; None: each position sees itself only. The variance at a position
        sums squared distances from the cumulative means of the positions it sees.
      keepdims: Whether the reduced axes stay, with size 1.
      sync_replicas: Whether to reduce over the replicas too, under a `pmap` over
        `PMAP_PARALLEL_AXIS_NAME`.

    Returns:
      Mean and variance, in float32 or wider; 0 where everything is padded.

    Raises:
      ValueError: if the rank of `padding` is not that of `inputs`.
    """
    if padding is not None and padding.ndim != inputs.ndim:
        raise ValueError(
            f"compute_moments: padding has shape {padding.shape}, inputs have shape "
            f"{inputs.shape}; expected the same rank, with size 1 where padding broadcasts."
        )
    dims = tuple(axis % inputs.ndim for axis in reduce_over_dims)
    sync = sync_replicas and base_layer.is_running_under_pmap()
    x = widen(inputs)
    mask = jnp.ones((1,) * x.ndim, x.dtype) if padding is None else 1 - padding.astype(x.dtype)

    def total(values: Float[Array, "..."]) -> Float[Array, "..."]:
        values = jnp.sum(values, axis=dims, keepdims=True)
        if cumulative_axis is not None:
            values = jnp.cumsum(values, axis=cumulative_axis)
        return lax.psum(values, base_layer.PMAP_PARALLEL_AXIS_NAME) if sync else values

    # An axis where the mask has size 1 counts as often as the inputs are long there.
    repeats = math.prod(x.shape[axis] for axis in dims if mask.shape[axis] == 1)
    if cumulative_axis is not None and mask.shape[cumulative_axis] == 1:
        shape = list(mask.shape)
        shape[cumulative_axis] = x.shape[cumulative_axis]
        mask = jnp.broadcast_to(mask, shape)
    count = jnp.maximum(total(mask) * repeats, 1.0)
    masked = x if padding is None else x * mask
    mean = total(masked) / count
    squares = jnp.square(x - mean)
    variance = total(squares if padding is None else squares * mask) / count
    if not keepdims:
        mean, variance = jnp.squeeze(mean, dims), jnp.squeeze(variance, dims)
    return mean, variance

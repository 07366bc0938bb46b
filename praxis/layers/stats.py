"""Statistics of an array, for summaries."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import py_utils

NestedMap = py_utils.NestedMap


def compute_stats(
    inputs: Float[Array, "..."], padding: Shaped[Array, "..."] | None = None
) -> NestedMap:
    """Mean, standard deviation and maximum of the values that are not padded.

    Args:
      inputs: [...].
      padding: Of the rank of the inputs, with 1 for axes along which it is the same; 1 marks
        padding. None: there is none. Where all is padded, mean and deviation are 0.

    Returns:
      `mean_v`, `std_v` (the square root of the mean squared distance from the mean) and `max_v`.

    Raises:
      ValueError: if the padding does not broadcast to the inputs.
    """
    if padding is None:
        padding = jnp.zeros([1] * inputs.ndim)
    fits = padding.ndim == inputs.ndim and all(
        size in (1, whole) for size, whole in zip(padding.shape, inputs.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"compute_stats: padding has shape {padding.shape}, expected the rank of the inputs, "
            f"{inputs.shape}, and in each axis their size or 1."
        )
    is_valid = jnp.broadcast_to(padding == 0, inputs.shape)
    count = jnp.maximum(jnp.sum(is_valid), 1)
    mean = jnp.sum(jnp.where(is_valid, inputs, 0.0)) / count
    variance = jnp.sum(jnp.where(is_valid, jnp.square(inputs - mean), 0.0)) / count
    largest = jnp.max(inputs, where=is_valid, initial=-jnp.inf)
    return NestedMap(mean_v=mean, std_v=jnp.sqrt(variance), max_v=largest)

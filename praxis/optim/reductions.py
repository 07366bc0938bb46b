"""Sizes of tensors, and what optimizers do about them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LARGE = 100_000_000  # elements


def reduce_mean(array: Float[Array, "..."]) -> Float[Array, ""]:
    """The mean of all elements; large tensors are summed in two stages to keep precision."""
    if array.size > _LARGE:
        # A float: 2**31 elements are more than JAX takes as an int.
        return jnp.sum(jnp.sum(array, axis=-1)) / float(array.size)
    return jnp.mean(array)


def reduce_rms(array: Float[Array, "..."]) -> Float[Array, ""]:
    """The root of the mean square of all elements."""
    return jnp.sqrt(reduce_mean(jnp.square(array)))


def inf_to_nan(array: Float[Array, "..."]) -> Float[Array, "..."]:
    """Infinities as NaN, so that they are found wherever NaN is looked for."""
    return jnp.nan_to_num(array, nan=jnp.nan, posinf=jnp.nan, neginf=jnp.nan)


def clip_rms(update: Float[Array, "..."], threshold: float) -> Float[Array, "..."]:
    """Scales an update down to an RMS of at most `threshold`; 0 or less for no limit.

    Section 6 of Shazeer and Stern, "Adafactor", 2018, arXiv:1804.04235.
    """
    if threshold <= 0.0:
        return update
    return update / jnp.maximum(1.0, reduce_rms(update) / threshold)


def add_decayed(update: jax.Array, variable: jax.Array, weight_decay: float) -> jax.Array:
    """Update + weight_decay * variable; 0 or less for none."""
    return update + weight_decay * variable if weight_decay > 0.0 else update

"""Explicit broadcasting, so that code runs with implicit rank promotion switched off."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def expand_rank(x: Shaped[Array, "..."], rank: int) -> Shaped[Array, "..."]:
    """Adds axes of size 1 in front until `x` has the rank.

    Example:
      >>> expand_rank(jnp.ones([5]), 3).shape
      (1, 1, 5)
    """
    return jnp.expand_dims(x, tuple(range(rank - x.ndim)))

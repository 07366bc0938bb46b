"""Decays of running means that need no correction for their start from 0."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def adafactor_decay_rate_adam(beta2: float, step_counter: ArrayLike) -> Float[Array, ""]:
    """The weight of the old mean in an average that is free of its start from 0.

    d = b (1 - b^t) / (1 - b^(t + 1)), t from 0, makes x <- (1 - d) g + d x equal to Adam's moment
    divided by 1 - b^(t + 1).

    Args:
      beta2: b, above 0 and below 1.
      step_counter: t, the number of updates so far.
    """
    step = jnp.asarray(step_counter, jnp.float32)
    return beta2 * (1.0 - beta2**step) / (1.0 - beta2 ** (step + 1.0))


def adafactor_decay_rate_pow(exponent: float, step_counter: ArrayLike) -> Float[Array, ""]:
    """1 - (t + 1)^-c, which nears 1 as training goes on.

    Section 7.2 of Shazeer and Stern, "Adafactor", 2018, arXiv:1804.04235.

    Args:
      exponent: c, above 0.
      step_counter: t, the number of updates so far.
    """
    step = jnp.asarray(step_counter, jnp.float32)
    return 1.0 - (step + 1.0) ** -exponent

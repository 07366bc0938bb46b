"""Rounding that is right on average."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, BFloat16, Float32, PRNGKeyArray, UInt32

_DROPPED_BITS = 16  # of float32, which bfloat16 does not have


def stochastic_round(
    key: PRNGKeyArray | UInt32[Array, "2"], array: Float32[Array, "*shape"]
) -> BFloat16[Array, "*shape"]:
    """Rounds to one of the two neighbours in bfloat16, the nearer the likelier.

    The mean of the results is the value itself, so that a running mean with small steps, which
    rounding to the nearest would leave where it is, moves on average as in float32. Gupta et al.,
    "Deep Learning with Limited Numerical Precision", 2015, arXiv:1502.02551, section 3.

    Args:
      key: a random key.
      array: what to round; infinities and NaN stay.
    """
    bits = lax.bitcast_convert_type(array, jnp.uint32)
    noise = jax.random.bits(key, array.shape, jnp.uint16).astype(jnp.uint32)
    # Magnitudes are ordered like their bits: a carry out of the lower half is the next neighbour.
    kept = ((bits + noise) >> _DROPPED_BITS).astype(jnp.uint16)
    rounded = lax.bitcast_convert_type(kept, jnp.bfloat16)
    return jnp.where(jnp.isfinite(array), rounded, array.astype(jnp.bfloat16))

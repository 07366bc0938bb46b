"""From queries and keys to attention probabilities: query scale, soft cap, mask and softmax."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, py_utils
from praxis.layers.attention.masks import keep_from_mask
from praxis.layers.checks import check_last_axis, check_sizes

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams

# softplus(0) = ln 2, so that this factor makes the scale 1 / sqrt(dim) at the start.
_SCALE_AT_ZERO = 1.0 / math.log(2.0)


class PerDimScale(base_layer.BaseLayer):
    """Multiplies each dim by a learned positive factor.

    Computes `x * softplus(per_dim_scale) / (ln 2 sqrt(dim))`, which starts as the usual scale
    1 / sqrt(dim) of attention logits.

    Attributes:
      dim: H, at least 1. Required.

    Variables:
      per_dim_scale: [H]

    Raises:
      ValueError: during setup, if `dim` is below 1; in `__call__`, if the last axis is not H.
    """

    dim: int = 0

    def setup(self) -> None:
        check_sizes(self, "dim")
        self.create_variable(
            "per_dim_scale", WeightHParams(shape=[self.dim], init=WeightInit.Constant(0.0))
        )

    def __call__(self, inputs: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
        """Scales the last axis of `inputs`, [..., H]."""
        check_last_axis(self, inputs, "dim")
        scale = jax.nn.softplus(self.theta.per_dim_scale) * (_SCALE_AT_ZERO / math.sqrt(self.dim))
        return inputs * jnp.expand_dims(scale, range(inputs.ndim - 1))


def cap_logits(logits: Float[Array, "*B"], cap: float) -> Float[Array, "*B"]:
    """`cap * tanh(logits / cap)`, which stays between -cap and cap; no change if `cap` is 0.

    Bello et al., "Neural Combinatorial Optimization", 2016, arXiv:1611.09940, equation 16.
    """
    return cap * jnp.tanh(logits / cap) if cap > 0.0 else logits


def softmax(logits: Float[Array, "*B S"], extra_logit: float | None = None) -> Float[Array, "*B S"]:
    """Softmax over the last axis, with room for a key that is not there.

    Args:
      logits: [..., S].
      extra_logit: Logit of one more key, of value 0, so that the probabilities add up to less
        than 1. None: there is no such key.
    """
    if extra_logit is None:
        return jax.nn.softmax(logits, axis=-1)
    highest = jnp.maximum(jnp.max(logits, axis=-1, keepdims=True), extra_logit)
    highest = jax.lax.stop_gradient(highest)
    weights = jnp.exp(logits - highest)
    extra = jnp.exp(extra_logit - highest)
    return weights / (jnp.sum(weights, axis=-1, keepdims=True) + extra)


def attention_probs(
    logits: Float[Array, "*B S"],
    atten_mask: Shaped[Array, "..."] | None,
    *,
    cap: float,
    extra_logit: float | None,
) -> Float[Array, "*B S"]:
    """Caps, masks and normalises logits, in float32 from the mask on.

    A query that sees no key gives the same probability to all.

    Args:
      logits: [..., S].
      atten_mask: Of the rank of the logits, with 1 for a size where it is shared; None hides
        nothing.
      cap: Of `cap_logits`.
      extra_logit: Of `softmax`.

    Returns:
      [..., S], float32 or wider.
    """
    logits = cap_logits(logits, cap)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if atten_mask is not None:
        logits = py_utils.apply_mask_to_logits(logits, atten_mask)
    return softmax(logits, extra_logit)


def zero_blind_queries(
    context: Float[Array, "B T N H"], atten_mask: Shaped[Array, "_ _ _ S"]
) -> Float[Array, "B T N H"]:
    """Replaces by 0 the context of queries that see no key."""
    sees = jnp.any(keep_from_mask(atten_mask), axis=-1, keepdims=True)  # [B, N, T, 1]
    return jnp.where(jnp.swapaxes(sees, 1, 2), context, jnp.zeros([], context.dtype))

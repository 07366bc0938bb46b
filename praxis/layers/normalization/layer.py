"""Layer normalization and its cheaper relatives, which normalize each position by itself."""

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from praxis.base_layer import WeightHParamsCollection, WeightInit
from praxis.layers.checks import check_last_axis
from praxis.layers.normalization.base import BaseNormalization
from praxis.layers.normalization.moments import widen
from praxis.utils.broadcasting import expand_rank


class LayerNorm(BaseNormalization):
    """Computes `(x - mean) / sqrt(variance + epsilon) * scale + bias` over the last axis.

    Ba, Kiros and Hinton, "Layer Normalization", 2016, arXiv:1607.06450. Mean and variance are
    float32 or wider; the normalized value is cast back before scale and bias.

    Attributes:
      dim: D, at least 1. Required with a scale or a bias.
      epsilon: Added to the variance.
      use_scale: Whether to multiply by a scale.
      use_bias: Whether to add a bias.
      direct_scale: The scale is the variable itself, and starts at 1. Otherwise the variable
        starts at 0 and the scale is one more than it.
      reductions_in_fp32: Kept for configs that set it: reductions are never narrower.

    Variables:
      scale: [D], with `use_scale`; exempt from weight decay
      bias: [D], with `use_bias`; exempt from weight decay

    Raises:
      ValueError: during setup, if `dim` is missing; in `__call__`, if the last axis of the inputs
        is not D.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    direct_scale: bool = False
    reductions_in_fp32: bool = False

    def setup(self) -> None:
        collections = [WeightHParamsCollection.SKIP_LP_REGULARIZATION]
        if self.use_scale:
            init = WeightInit.Constant(1.0 if self.direct_scale else 0.0)
            self._create_vector("scale", init, collections=collections)
        if self.use_bias:
            self._create_vector("bias", WeightInit.Constant(0.0), collections=collections)

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes `inputs`, [..., D]. Paddings make no difference."""
        if self.use_scale or self.use_bias:
            check_last_axis(self, inputs, "dim")
        x = widen(inputs)
        centered = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
        outputs = (centered * lax.rsqrt(variance + self.epsilon)).astype(inputs.dtype)
        if self.use_scale:
            scale = self.theta.scale if self.direct_scale else 1 + self.theta.scale
            outputs = outputs * expand_rank(scale, inputs.ndim)
        if self.use_bias:
            outputs = outputs + expand_rank(self.theta.bias, inputs.ndim)
        return outputs


def _rms_normalize(x: Float[Array, "*B D"], epsilon: float) -> Float[Array, "*B D"]:
    """Divides by the root of the mean square of the last axis, in float32 or wider."""
    x = widen(x)
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


class RmsNorm(BaseNormalization):
    """Computes `x / sqrt(mean(x^2) + epsilon) * scale` over the last axis.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467. Unlike
    those of `LayerNorm` the scale is subject to weight decay, and direct by default.

    Attributes:
      dim: D, at least 1. Required.
      epsilon: Added to the mean square.
      direct_scale: The scale is the variable itself, and starts at 1. Otherwise the variable
        starts at 0 and the scale is one more than it.
      intermediate_dtype: Cast the inputs to this dtype first. The mean is float32 or wider
        without it too.

    Variables:
      scale: [D]

    Raises:
      ValueError: during setup, if `dim` is missing; in `__call__`, if the last axis of the inputs
        is not D.
    """

    epsilon: float = 1e-6
    direct_scale: bool = True
    intermediate_dtype: DTypeLike | None = None

    def setup(self) -> None:
        self._create_vector("scale", WeightInit.Constant(1.0 if self.direct_scale else 0.0))

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes `inputs`, [..., D], and returns `fprop_dtype`. Paddings do nothing."""
        check_last_axis(self, inputs, "dim")
        if self.intermediate_dtype is not None:
            inputs = inputs.astype(self.intermediate_dtype)
        outputs = _rms_normalize(inputs, self.epsilon).astype(self.fprop_dtype)
        scale = self.theta.scale if self.direct_scale else 1 + self.theta.scale
        return outputs * expand_rank(scale, inputs.ndim)


class RmsNormNoScale(BaseNormalization):
    """Computes `x / sqrt(mean(x^2) + epsilon)` over the last axis.

    Attributes:
      dim: Not needed.
      epsilon: Added to the mean square.
    """

    epsilon: float = 1e-6

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes `inputs`, [..., D], and keeps their dtype. Paddings do nothing."""
        return _rms_normalize(inputs, self.epsilon).astype(inputs.dtype)

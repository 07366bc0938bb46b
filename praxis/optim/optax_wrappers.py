"""Optimizers of optax in the frame of `BaseOptimizer`."""

import warnings
from typing import Any

import jax.numpy as jnp
import optax

from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import LearningRateFn


class Lamb(BaseOptimizer):
    """`optax.lamb`: You et al., "Large Batch Optimization for Deep Learning", arXiv:1904.00962.

    Attributes:
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root of the second moment.
      eps_root: added under the root.
      weight_decay: times the variable, added before the trust ratio.
      mask: which variables decay; None for all.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    eps_root: float = 0.0
    weight_decay: float = 0.0
    mask: Any | None = None

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> optax.GradientTransformation:
        return optax.lamb(
            lr,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            eps_root=self.eps_root,
            weight_decay=self.weight_decay,
            mask=self.mask,
        )


class Lars(BaseOptimizer):
    """`optax.lars`: You et al., "Large Batch Training of Convolutional Networks", arXiv:1708.03888.

    Attributes:
      weight_decay: times the variable, added to the gradient.
      weight_decay_mask: which variables decay.
      trust_coefficient: factor of the trust ratio.
      eps: added to the norm of the update.
      trust_ratio_mask: which variables are scaled by the trust ratio.
      momentum: decay of the trace of updates.
      nesterov: looks one step ahead.
    """

    weight_decay: float = 0.0
    weight_decay_mask: Any = True
    trust_coefficient: float = 0.001
    eps: float = 0.0
    trust_ratio_mask: Any = True
    momentum: float = 0.9
    nesterov: bool = False

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> optax.GradientTransformation:
        return optax.lars(
            lr,
            weight_decay=self.weight_decay,
            weight_decay_mask=self.weight_decay_mask,
            trust_coefficient=self.trust_coefficient,
            eps=self.eps,
            trust_ratio_mask=self.trust_ratio_mask,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )


class Adafactor(BaseOptimizer):
    """`optax.adafactor`: Shazeer and Stern, "Adafactor", 2018, arXiv:1804.04235.

    Attributes:
      min_dim_size_to_factor: the second largest dim of a variable must have this size for its
        second moment to be factored.
      decay_rate: exponent of the decay of the second moment.
      decay_offset: steps taken off the step in it.
      multiply_by_parameter_scale: scales updates by the RMS of the variable.
      clip_threshold: limit of the RMS of an update; None for none.
      momentum: decay of a mean of updates; None for no mean.
      dtype_momentum: type of the mean, a name in `jax.numpy`.
      weight_decay_rate: deprecated, not scaled by the learning rate.
      eps: added to squared gradients.
      factored: whether second moments are factored at all.
    """

    min_dim_size_to_factor: int = 128
    decay_rate: float = 0.8
    decay_offset: int = 0
    multiply_by_parameter_scale: bool = True
    clip_threshold: float | None = 1.0
    momentum: float | None = None
    dtype_momentum: str = "float32"
    weight_decay_rate: float | None = None
    eps: float = 1e-30
    factored: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay_rate:
            warnings.warn(
                "Adafactor.weight_decay_rate is deprecated and is not scaled by the learning rate; "
                "use decoupled_weight_decay.",
                DeprecationWarning,
                stacklevel=2,
            )

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> optax.GradientTransformation:
        return optax.adafactor(
            lr,
            min_dim_size_to_factor=self.min_dim_size_to_factor,
            decay_rate=self.decay_rate,
            decay_offset=self.decay_offset,
            multiply_by_parameter_scale=self.multiply_by_parameter_scale,
            clipping_threshold=self.clip_threshold,
            momentum=self.momentum,
            dtype_momentum=getattr(jnp, self.dtype_momentum),
            weight_decay_rate=self.weight_decay_rate,
            eps=self.eps,
            factored=self.factored,
        )

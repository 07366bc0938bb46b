"""Batch normalization."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis import pax_fiddle
from praxis.base_layer import WeightHParamsCollection, WeightInit
from praxis.layers.checks import check_last_axis
from praxis.layers.normalization.base import BaseNormalization, channel_paddings
from praxis.layers.normalization.moments import compute_moments
from praxis.utils.broadcasting import expand_rank

EPSILON = 0.001


class NormStatistics(NamedTuple):
    """What `BatchNorm` normalizes with, each [D]: `(x - mean) / sqrt(variance) * gamma + beta`."""

    mean: Float[Array, " D"]
    variance: Float[Array, " D"]
    beta: Float[Array, " D"]
    gamma: Float[Array, " D"]


class BatchNorm(BaseNormalization):
    """Normalizes each channel by its mean and variance over all other axes.

    Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167. The result is
    `(x - mean) / sqrt(variance + 0.001) * (1 + gamma) + beta`. Training takes the moments of the
    batch, evaluation the moving averages.

    Attributes:
      dim: D, at least 1. Required.
      decay: Weight of the old value in the moving averages.
      use_moving_avg_in_training: Normalize by the moving averages, this batch included, in
        training too. Beta and gamma are then left out, in evaluation as well.
      set_padded_output_to_zero: Zero the outputs at padded positions.
      force_eval_mode: Behave as in evaluation always.
      gamma_init: Initializer of `gamma`.

    Variables:
      beta: [D]
      gamma: [D]
      moving_mean: [D], not trainable
      moving_variance: [D], not trainable

    Raises:
      ValueError: during setup, if `dim` is missing; in `__call__`, if the last axis of the inputs
        is not D, or the paddings do not have the shape of the other axes.
    """

    decay: float = 0.999
    use_moving_avg_in_training: bool = False
    set_padded_output_to_zero: bool = True
    force_eval_mode: bool = False
    gamma_init: WeightInit = pax_fiddle.instance_field(
        pax_fiddle.auto_config(lambda: WeightInit.Constant(0.0))
    )

    def setup(self) -> None:
        self._create_vector("beta", WeightInit.Constant(0.0))
        self._create_vector("gamma", self.gamma_init)
        for name, start in (("moving_mean", 0.0), ("moving_variance", 1.0)):
            self._create_vector(
                name,
                WeightInit.Constant(start),
                collections=[WeightHParamsCollection.REQUIRES_MEAN_SYNC],
                trainable=False,
            )

    def compute_and_update_moments(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None
    ) -> NormStatistics:
        """Picks what to normalize with; in training, also updates the moving averages.

        Args:
          inputs: [..., D].
          paddings: [..., 1] of the rank of the inputs, or None.
        """
        beta, gamma = self.theta.beta, 1 + self.theta.gamma
        if self.use_moving_avg_in_training:
            beta, gamma = jnp.zeros_like(beta), jnp.ones_like(gamma)
        moving_mean = self.get_var("moving_mean")
        moving_variance = self.get_var("moving_variance")
        if self.do_eval or self.force_eval_mode:
            return NormStatistics(moving_mean, moving_variance, beta, gamma)
        mean, variance = compute_moments(inputs, paddings, range(inputs.ndim - 1))
        moving_mean = self._update_average("moving_mean", moving_mean, mean)
        moving_variance = self._update_average("moving_variance", moving_variance, variance)
        for name, value in (
            ("mean", mean),
            ("variance", variance),
            ("moving_mean", moving_mean),
            ("moving_variance", moving_variance),
        ):
            self.add_summary(name, value, verbosity=4)
        if self.use_moving_avg_in_training:
            mean, variance = moving_mean, moving_variance
        return NormStatistics(mean, variance, beta, gamma)

    def _update_average(
        self, name: str, old: Float[Array, " D"], new: Float[Array, " D"]
    ) -> Float[Array, " D"]:
        average = (old * self.decay + new * (1 - self.decay)).astype(old.dtype)
        self.update_var(name, average)
        return average

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes `inputs`.

        Args:
          inputs: [..., D].
          paddings: [...], the shape of the inputs without D; 1 marks padding, which stays out of
            the statistics.
        """
        check_last_axis(self, inputs, "dim")
        if paddings is not None:
            paddings = channel_paddings(self, inputs, paddings)
        stats = self.compute_and_update_moments(inputs, paddings)
        factor = stats.gamma * lax.rsqrt(stats.variance + EPSILON)
        mean, factor, beta = (
            expand_rank(vector, inputs.ndim) for vector in (stats.mean, factor, stats.beta)
        )
        outputs = (inputs - mean) * factor + beta
        if paddings is not None and self.set_padded_output_to_zero:
            outputs = outputs * (1 - paddings)
        return outputs.astype(jnp.promote_types(inputs.dtype, stats.beta.dtype))

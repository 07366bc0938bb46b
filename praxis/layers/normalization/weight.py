"""Normalizations of weights rather than activations."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis.base_layer import WeightHParamsCollection, WeightInit
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.normalization.base import BaseNormalization
from praxis.layers.normalization.moments import widen
from praxis.utils.broadcasting import expand_rank


class WeightNormL2(BaseNormalization):
    """Gives each output channel of a weight the norm `1 + g`: `(1 + g) * w / ||w||`.

    Salimans and Kingma, "Weight Normalization", 2016, arXiv:1602.07868.

    Attributes:
      dim: D, the output channels of the weight, at least 1. Required.

    Variables:
      g: [D]

    Raises:
      ValueError: during setup, if `dim` is missing; in `__call__`, if the last axis of the weight
        is not D.
    """

    def setup(self) -> None:
        self._create_vector("g", WeightInit.Constant(0.0))

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes the weight `inputs`, [..., D], over all but the last axis."""
        check_last_axis(self, inputs, "dim")
        norm = jnp.sqrt(jnp.sum(jnp.square(inputs), axis=tuple(range(inputs.ndim - 1))))
        return inputs * expand_rank((1 + self.theta.g) / norm, inputs.ndim)


class SpectralNorm(BaseNormalization):
    """Divides a weight by an estimate of its largest singular value.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018,
    arXiv:1802.05957. The estimate is by power iteration on the weight as a [-1, D] matrix, which
    goes on from call to call.

    Attributes:
      dim: D, the output channels of the weight, at least 1. Required.
      n_power_iteration: Steps of the power iteration in each call, at least 1.

    Variables:
      u: [D], not trainable, the estimate of the right singular vector

    Raises:
      ValueError: during setup, if a field is missing or below 1; in `__call__`, if the last axis of
        the weight is not D.
    """

    n_power_iteration: int = 1

    def setup(self) -> None:
        check_sizes(self, "n_power_iteration")
        self._create_vector(
            "u",
            WeightInit.Gaussian(),
            collections=[WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            trainable=False,
        )

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes the weight `inputs`, [..., D], and returns `fprop_dtype`."""
        check_last_axis(self, inputs, "dim")
        inputs = self._cast_to_fprop_dtype(inputs)
        old = self.get_var("u")
        matrix = widen(inputs).reshape(-1, self.dim)  # [M, D]
        left, right = _power_iteration(
            matrix, old.astype(matrix.dtype), steps=self.n_power_iteration
        )
        if not self.do_eval:
            self.update_var("u", right.astype(old.dtype))
        return (inputs / (left @ matrix @ right)).astype(inputs.dtype)


def _power_iteration(
    matrix: Float[Array, "M D"], right: Float[Array, " D"], *, steps: int
) -> tuple[Float[Array, " M"], Float[Array, " D"]]:
    """Improves an estimate of the first right singular vector; returns left and right vectors."""
    left = jnp.zeros(matrix.shape[:1], matrix.dtype)
    for _ in range(steps):
        left = matrix @ right
        left = left / jnp.linalg.norm(left)
        right = left @ matrix
        right = right / jnp.linalg.norm(right)
    return left, right

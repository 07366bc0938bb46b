"""Random regularization: dropout, and residual branches that are dropped whole."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from praxis import base_layer


def keep_mask(key: PRNGKeyArray, *, keep_prob: float, shape: Sequence[int]) -> Bool[Array, "..."]:
    """Draws booleans that are true with probability `keep_prob`.

    The uniform numbers are float32 whatever dtype they mask: bfloat16 has too few of them near 1
    to express a small probability of dropping.
    """
    return keep_prob + jax.random.uniform(key, shape, jnp.float32) >= 1.0


class Dropout(base_layer.BaseLayer):
    """Zeroes elements at random in training and scales up the others, so that the mean stays.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.

    Attributes:
      keep_prob: Probability of keeping an element, above 0 and at most 1.
      noise_shape: Shape of the random mask, which broadcasts against the inputs; None takes the
        shape of the inputs.
      noise_shape_broadcast_dims: Axes along which all elements share their fate; the mask has
        size 1 there.
      dropout_at_eval: Drop in evaluation too.
      transpose_qk: Draw the mask with its last two axes swapped, if it has rank 4 and these are
        equal. This fits the layout of attention logits on TPU and only reshuffles randomness.

    Raises:
      ValueError: in `__call__`, if `keep_prob` is out of range, an axis is not one of the mask's,
        or the mask does not broadcast to the inputs.
    """

    keep_prob: float = 1.0
    noise_shape: Sequence[int] | None = None
    noise_shape_broadcast_dims: Sequence[int] | None = None
    dropout_at_eval: bool = False
    transpose_qk: bool | None = False

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """Drops elements of `inputs`, in training or with `dropout_at_eval`."""
        if self.keep_prob == 1.0 or (self.do_eval and not self.dropout_at_eval):
            return inputs
        if not 0.0 < self.keep_prob < 1.0:
            raise ValueError(
                f"{self.path_text}: keep_prob is {self.keep_prob}, expected the probability of "
                "keeping an element, above 0 and at most 1."
            )
        shape = self._mask_shape(inputs.shape)
        transpose = self.transpose_qk and len(shape) == 4 and shape[2] == shape[3]
        mask = keep_mask(self.next_prng_key(), keep_prob=self.keep_prob, shape=shape)
        if transpose:
            mask = jnp.swapaxes(mask, 2, 3)
        mask = jnp.broadcast_to(mask, inputs.shape)
        return jnp.where(mask, inputs / self.keep_prob, jnp.zeros_like(inputs))

    def _mask_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the mask for inputs of a shape, checked against it."""
        shape = list(input_shape if self.noise_shape is None else self.noise_shape)
        for axis in self.noise_shape_broadcast_dims or ():
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"{self.path_text}: noise_shape_broadcast_dims has axis {axis}, expected axes "
                    f"below {len(shape)}, the rank of the mask for inputs of shape {input_shape}."
                )
            shape[axis] = 1
        fits = len(shape) <= len(input_shape) and all(
            size in (1, full) for size, full in zip(shape[::-1], input_shape[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                f"{self.path_text}: noise_shape = {tuple(shape)} does not broadcast to the inputs, "
                f"of shape {input_shape}. Give each axis its size or 1."
            )
        return tuple(shape)


class StochasticResidual(base_layer.BaseLayer):
    """Adds a residual branch that is dropped for some examples in training.

    Huang et al., "Deep Networks with Stochastic Depth", 2016, arXiv:1603.09382.

    Attributes:
      residual_weight: Factor of the branch.
      survival_prob: Probability of keeping the branch of an example, above 0 and at most 1. In
        training what is kept is divided by it.

    Raises:
      ValueError: in `__call__`, if `survival_prob` is out of range or the shapes differ.
    """

    residual_weight: float = 1.0
    survival_prob: float = 1.0

    def __call__(
        self, inputs: Float[Array, " B *D"], residual: Float[Array, "..."]
    ) -> Float[Array, " B *D"]:
        """Computes `inputs + residual_weight * drop(residual)`.

        Args:
          inputs: [B, ...].
          residual: [B, ...], the output of the branch.
        """
        if inputs.shape != residual.shape:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape} and residual has shape "
                f"{residual.shape}, expected the same shape."
            )
        if not 0.0 < self.survival_prob <= 1.0:
            raise ValueError(
                f"{self.path_text}: survival_prob is {self.survival_prob}, expected the "
                "probability of keeping the branch, above 0 and at most 1."
            )
        if self.survival_prob < 1.0 and not self.do_eval:
            shape = (residual.shape[0],) + (1,) * (residual.ndim - 1)
            mask = keep_mask(self.next_prng_key(), keep_prob=self.survival_prob, shape=shape)
            mask = jnp.broadcast_to(mask, residual.shape)
            residual = jnp.where(mask, residual / self.survival_prob, jnp.zeros_like(residual))
        return inputs + self.residual_weight * residual

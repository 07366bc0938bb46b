"""Shifts sequences in time by random amounts."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis import base_layer


def shift_each(
    inputs: Shaped[Array, " B *T"],
    shifts: Shaped[Array, " B"],
    *,
    reach: int,
    axis: int,
    fill: float,
) -> Shaped[Array, " B *T"]:
    """Moves what each row holds along an axis, and fills what becomes free.

    Args:
      inputs: [B, ...].
      shifts: [B], integers in [-reach, reach]; a positive one moves towards the start.
      reach: Largest size of a shift.
      axis: At least 1.
      fill: The value that is shifted in.
    """
    widths = [(0, 0)] * inputs.ndim
    widths[axis] = (reach, reach)
    padded = jnp.pad(inputs, widths, constant_values=fill)

    def cut(row: Array, shift: Array) -> Array:
        length = inputs.shape[axis]
        return lax.dynamic_slice_in_dim(row, reach + shift, length, axis - 1)

    return jax.vmap(cut)(padded, shifts)


class TemporalShifting(base_layer.BaseLayer):
    """Shifts each example in time by a random amount, in training.

    Attributes:
      shift_range_ms: Largest shift in either direction, in milliseconds; 0 shifts nothing.
      sample_rate: Samples a second.
      axis: That of time, at least 1.

    Raises:
      ValueError: during setup, if a field is out of range; in `__call__`, if the range is not
        shorter than the inputs, or the paddings do not fit.
    """

    shift_range_ms: float = 0.0
    sample_rate: float = 16000.0
    axis: int = 1

    def setup(self) -> None:
        if self.axis < 1:
            raise ValueError(
                f"{self.path_text}: axis is {self.axis}, expected at least 1: axis 0 is the batch."
            )
        for field, in_range in (
            ("shift_range_ms", self.shift_range_ms >= 0.0),
            ("sample_rate", self.sample_rate > 0.0),
        ):
            if not in_range:
                raise ValueError(
                    f"{self.path_text}: {field} is {getattr(self, field)}, expected a positive "
                    "number."
                )

    def __call__(
        self, features: Float[Array, " B *T"], paddings: Shaped[Array, " B *_"] | None = None
    ) -> tuple[Float[Array, " B *T"], Shaped[Array, " B *_"] | None]:
        """Shifts features and their paddings.

        Args:
          features: [B, ...], with time on `axis`.
          paddings: [B, ...], with time on `axis` too; 1 marks padding.

        Returns:
          Features, with 0 where nothing came; and paddings, with 1 there, or None.
        """
        if self.do_eval or self.shift_range_ms == 0.0:
            return features, paddings
        reach = round(self.sample_rate * self.shift_range_ms / 1000.0)
        if features.ndim <= self.axis or reach >= features.shape[self.axis]:
            raise ValueError(
                f"{self.path_text}: features have shape {features.shape}, expected more than the "
                f"{reach} samples of shift_range_ms = {self.shift_range_ms} on axis {self.axis}."
            )
        if paddings is not None and (
            paddings.ndim <= self.axis
            or paddings.shape[0] != features.shape[0]
            or paddings.shape[self.axis] != features.shape[self.axis]
        ):
            raise ValueError(
                f"{self.path_text}: paddings have shape {paddings.shape}, features have shape "
                f"{features.shape}; expected the same sizes on axes 0 and {self.axis}."
            )
        shifts = jax.random.randint(self.next_prng_key(), features.shape[:1], -reach, reach + 1)
        features = shift_each(features, shifts, reach=reach, axis=self.axis, fill=0.0)
        if paddings is not None:
            paddings = shift_each(paddings, shifts, reach=reach, axis=self.axis, fill=1.0)
        return features, paddings

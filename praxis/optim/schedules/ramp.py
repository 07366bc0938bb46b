"""Warm-up, a constant phase, then a decay."""

import abc

from jax.typing import ArrayLike
from jaxtyping import Array, Float

from praxis.optim.schedules.base import BaseSchedule, Constant
from praxis.optim.schedules.decay import DelayedCosine, Exponential, Linear, Polynomial
from praxis.optim.schedules.piecewise import PiecewiseSchedule


def ramp_hold_decay(
    decay: BaseSchedule, *, peak: float, warmup_steps: int, decay_start: int, start_step: int
) -> PiecewiseSchedule:
    """A line from 0 to the peak, the peak, then `decay`, which counts steps from its own start.

    Args:
      decay: the last phase.
      peak: value after the warm-up.
      warmup_steps: length of the warm-up, counted from `start_step`.
      decay_start: start of the last phase, counted from `start_step`.
      start_step: steps before the warm-up; the value there is 1.
    """
    phases: list[tuple[BaseSchedule, int]] = []  # each with the step of its end
    if start_step > 0:
        phases.append((Constant(value=1.0), start_step))
    if warmup_steps > 0:
        ramp = Linear(start=(0, 0.0), limit=(warmup_steps, peak))
        phases.append((ramp, start_step + warmup_steps))
    if decay_start > warmup_steps:
        phases.append((Constant(value=peak), start_step + decay_start))
    return PiecewiseSchedule(
        schedules=[*(phase for phase, _ in phases), decay], boundaries=[end for _, end in phases]
    )


class RampHoldDecay(BaseSchedule):
    """Warm-up, `max`, then a decay to `max * min_ratio`; subclasses choose the curve.

    Attributes:
      warmup_steps: length of the ramp from 0 to `max`; 0 for none.
      decay_start: step at which the decay begins, at least `warmup_steps`.
      decay_end: step at which it ends; equal to `decay_start` for a jump.
      max: the largest value.
      min_ratio: final value as a fraction of `max`.

    Raises:
      ValueError: when built, if the phases overlap or `max` is not positive.
    """

    warmup_steps: int = 0
    decay_start: int = 0
    decay_end: int = 0
    max: float = 0.0
    min_ratio: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        if self.decay_start < self.warmup_steps:
            raise ValueError(
                f"{owner}: decay_start = {self.decay_start} is before the end of the warm-up, "
                f"warmup_steps = {self.warmup_steps}."
            )
        if self.decay_end < self.decay_start:
            raise ValueError(
                f"{owner}: decay_end = {self.decay_end} is before decay_start = {self.decay_start}."
            )
        if self.max <= 0:
            raise ValueError(f"{owner}: max is {self.max}, expected a positive value.")
        length, final = self.decay_end - self.decay_start, self.max * self.min_ratio
        self._phases = ramp_hold_decay(
            self._decay(length, final) if length else Constant(value=final),
            peak=self.max,
            warmup_steps=self.warmup_steps,
            decay_start=self.decay_start,
            start_step=self._start_step(),
        )

    def _start_step(self) -> int:
        """Steps before the warm-up."""
        return 0

    @abc.abstractmethod
    def _decay(self, length: int, final: float) -> BaseSchedule:
        """The curve from (0, max) to (length, final), constant after it."""

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        return self._phases.value_at(step)


class LinearRampupCosineDecay(RampHoldDecay):
    """Warm-up, `max`, then half a cosine wave down to `max * min_ratio`.

    All other steps count from `start_step`. Before it the value is 1, not `max`.

    Attributes:
      start_step: steps before the ramp.
    """

    start_step: int = 0

    def _start_step(self) -> int:
        return self.start_step

    def _decay(self, length: int, final: float) -> BaseSchedule:
        return DelayedCosine(start=(0, self.max), limit=(length, final))


class LinearRampupExponentialDecay(RampHoldDecay):
    """Warm-up, `max`, then a geometric decay to `max * min_ratio`.

    Raises:
      ValueError: when built, if `min_ratio` is not positive, and as for `RampHoldDecay`.
    """

    def __post_init__(self) -> None:
        if self.min_ratio <= 0:
            raise ValueError(
                f"LinearRampupExponentialDecay: min_ratio is {self.min_ratio}, expected a positive "
                f"ratio; a geometric decay never reaches 0."
            )
        super().__post_init__()

    def _decay(self, length: int, final: float) -> BaseSchedule:
        return Exponential(start=(0, self.max), limit=(length, final))


class LinearRampupPolynomialDecay(RampHoldDecay):
    """Warm-up, `max`, then max + r^power (max * min_ratio - max), r the fraction of the way.

    Attributes:
      power: exponent of the fraction.
    """

    power: int | float = 1

    def _decay(self, length: int, final: float) -> BaseSchedule:
        return Polynomial(start=(0, self.max), limit=(length, final), power=self.power)

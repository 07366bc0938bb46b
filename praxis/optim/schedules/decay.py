"""Curves between two points: polynomial, geometric, and half a cosine wave."""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from praxis.optim.schedules.base import BaseSchedule, as_float

Point = tuple[int | float, int | float]  # step, which may be fractional, and value


def check_points(owner: str, start: Sequence[int | float], limit: Sequence[int | float]) -> None:
    """Refuses points that are not pairs, or whose steps do not increase."""
    for field, point in (("start", start), ("limit", limit)):
        if len(point) != 2:
            raise ValueError(f"{owner}: {field} is {point!r}, expected a pair (step, value).")
    if start[0] >= limit[0]:
        raise ValueError(
            f"{owner}: start is at step {start[0]} and limit at step {limit[0]}; "
            f"the step of limit must be the larger one."
        )


class Polynomial(BaseSchedule):
    """A power of the fraction of the way from one point to another, constant outside.

    With r = (step - x0) / (x1 - x0), clamped to [0, 1], the value is y0 + f (y1 - y0), where f is
    r^power for origin "start" and 1 - (1 - r)^power for origin "limit".

    Attributes:
      start: (x0, y0), step and value.
      limit: (x1, y1), step and value.
      power: exponent, may be fractional.
      origin: "start" or "limit", the end of the curve at which a power above 1 is flat.

    Raises:
      ValueError: when built, if a point is not a pair, x0 >= x1, or the origin is unknown.
    """

    start: Point = (0, 1.0)
    limit: Point = (1, 1.0)
    power: int | float = 1
    origin: str = "start"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_points(type(self).__name__, self.start, self.limit)
        if self.origin not in ("start", "limit"):
            raise ValueError(
                f"{type(self).__name__}: origin is {self.origin!r}, expected 'start' or 'limit'."
            )

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        (x0, y0), (x1, y1) = self.start, self.limit
        ratio = jnp.clip((as_float(step) - x0) / (x1 - x0), 0.0, 1.0)
        passed = ratio**self.power if self.origin == "start" else 1 - (1 - ratio) ** self.power
        # The ends are selected, not computed: y0 + (y1 - y0) may differ from y1 by rounding.
        return jnp.where(ratio >= 1, jnp.float32(y1), jnp.float32(y0) + passed * (y1 - y0))


class Linear(Polynomial):
    """A straight line from `start` to `limit`, constant outside.

    Raises:
      ValueError: when built, if `power` is not 1, and as for `Polynomial`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.power != 1:
            raise ValueError(f"Linear: power is {self.power}, expected 1. Use Polynomial.")


class Exponential(BaseSchedule):
    """A geometric curve from `start` to `limit`, constant outside.

    Attributes:
      start: (x0, y0), step and value.
      limit: (x1, y1), step and value.
      linear: the logarithm of the value as a schedule.

    Raises:
      ValueError: when built, if x0 >= x1, or a value is not positive.
    """

    start: Point = (0, 1.0)
    limit: Point = (1, 0.5)
    linear: Linear = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_points(type(self).__name__, self.start, self.limit)
        for field in ("start", "limit"):
            if (value := getattr(self, field)[1]) <= 0:
                raise ValueError(
                    f"{type(self).__name__}: {field} has value {value}, expected a positive one."
                )
        self.linear = Linear(
            start=(self.start[0], math.log(self.start[1])),
            limit=(self.limit[0], math.log(self.limit[1])),
        )

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        return jnp.exp(self.linear.value_at(step))


class Cosine(BaseSchedule):
    """Half a cosine wave from `initial_value` at step 0 to `final_value` at `total_steps`.

    Attributes:
      initial_value: value at step 0.
      final_value: value from `total_steps` on.
      total_steps: length in steps, at least 1.

    Raises:
      ValueError: when built, if `total_steps` is below 1.
    """

    initial_value: float = 1.0
    final_value: float = 0.0
    total_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_steps < 1:
            raise ValueError(f"Cosine: total_steps is {self.total_steps}, expected at least 1.")

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        # optax.cosine_decay_schedule takes final / initial, which has no value for initial = 0.
        ratio = jnp.minimum(as_float(step) / self.total_steps, 1.0)
        height = 0.5 * (self.initial_value - self.final_value)
        return self.final_value + height * (1 + jnp.cos(jnp.pi * ratio))


class DelayedCosine(BaseSchedule):
    """Half a cosine wave from `start` to `limit`, constant outside.

    Attributes:
      start: (x0, y0), step and value.
      limit: (x1, y1), step and value.
      linear: the phase of the wave, 0 to pi, as a schedule.
      max: y0.
      min: y1.

    Raises:
      ValueError: when built, if x0 >= x1, y0 is not positive, or y1 is negative.
    """

    start: Point = (0, 1.0)
    limit: Point = (1, 0.5)
    linear: Linear = dataclasses.field(init=False, repr=False)
    max: float = dataclasses.field(init=False, repr=False)
    min: float = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_points(type(self).__name__, self.start, self.limit)
        if self.start[1] <= 0 or self.limit[1] < 0:
            raise ValueError(
                f"DelayedCosine: the values are {self.start[1]} at start and {self.limit[1]} at "
                f"limit, expected a positive one and one that is not negative."
            )
        self.max, self.min = self.start[1], self.limit[1]
        self.linear = Linear(start=(self.start[0], 0.0), limit=(self.limit[0], math.pi))

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        phase = self.linear.value_at(step)
        return self.min + 0.5 * (self.max - self.min) * (1 + jnp.cos(phase))


class ContinuousSchedule(BaseSchedule):
    """Halves every `half_life_steps` after `start_step`, down to a floor.

    Attributes:
      initial_value: value until `start_step`.
      start_step: step at which the decay begins.
      half_life_steps: steps in which the value halves.
      min: the floor as a fraction of `initial_value`, in (0, 1).
      exp: the fraction of `initial_value` as a schedule.

    Raises:
      ValueError: when built, if `min` is not in (0, 1) or `half_life_steps` is not positive.
    """

    initial_value: float = 1.0
    start_step: int = 400_000
    half_life_steps: int = 100_000
    min: float = 0.01
    exp: Exponential = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min < 1:
            raise ValueError(f"ContinuousSchedule: min is {self.min}, expected 0 < min < 1.")
        if self.half_life_steps <= 0:
            raise ValueError(
                f"ContinuousSchedule: half_life_steps is {self.half_life_steps}, "
                f"expected at least 1."
            )
        floor_step = self.start_step + self.half_life_steps * math.log(self.min) / math.log(0.5)
        self.exp = Exponential(start=(self.start_step, 1.0), limit=(floor_step, self.min))

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        return self.initial_value * self.exp.value_at(step)

"""Schedules put together from pieces: constants, other schedules, cycles."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from praxis.optim.schedules.base import BaseSchedule, as_float, as_step
from praxis.optim.schedules.decay import Linear


def check_pieces(
    owner: str, field: str, pieces: Sequence[Any] | None, boundaries: Sequence[int] | None
) -> None:
    """Refuses pieces that do not fit between sorted boundaries."""
    if pieces is None or boundaries is None:
        raise ValueError(f"{owner}: {field} and boundaries must both be set.")
    if len(pieces) != len(boundaries) + 1:
        raise ValueError(
            f"{owner}: {len(pieces)} {field} for {len(boundaries)} boundaries, "
            f"expected one more than boundaries."
        )
    if list(boundaries) != sorted(boundaries):
        raise ValueError(f"{owner}: boundaries {list(boundaries)} are not in increasing order.")


class PiecewiseConstant(BaseSchedule):
    """`values[i]` from `boundaries[i - 1]` on, until before `boundaries[i]`.

    Attributes:
      boundaries: steps, increasing.
      values: one more than boundaries.

    Raises:
      ValueError: when built, if the lengths do not fit or the boundaries are not sorted.
    """

    boundaries: Sequence[int] | None = None
    values: Sequence[int | float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pieces("PiecewiseConstant", "values", self.values, self.boundaries)

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        values = jnp.asarray(self.values, jnp.float32)
        boundaries = jnp.asarray(self.boundaries, jnp.float32)
        return values[jnp.searchsorted(boundaries, as_float(step), side="right")]


class LinearRampupPiecewiseConstant(BaseSchedule):
    """A line from 0 to `values[0]` at `boundaries[0]`, then `values[i]` from `boundaries[i]` on.

    Attributes:
      boundaries: steps, increasing, the first above 0.
      values: as many as boundaries.
      p0: the ramp.
      p1: the constants.

    Raises:
      ValueError: when built, if the lengths differ or are 0, or the boundaries are not sorted.
    """

    boundaries: Sequence[int] | None = None
    values: Sequence[int | float] | None = None
    p0: Linear = dataclasses.field(init=False, repr=False)
    p1: PiecewiseConstant = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        boundaries, values = list(self.boundaries or ()), list(self.values or ())
        if not values or len(values) != len(boundaries):
            raise ValueError(
                f"LinearRampupPiecewiseConstant: {len(values)} values for {len(boundaries)} "
                f"boundaries, expected equal lengths of at least 1."
            )
        check_pieces("LinearRampupPiecewiseConstant", "values", [0.0, *values], boundaries)
        self.p0 = Linear(start=(0, 0.0), limit=(boundaries[0], values[0]))
        self.p1 = PiecewiseConstant(boundaries=boundaries[1:], values=values)

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        assert self.boundaries is not None
        ramping = as_float(step) < self.boundaries[0]
        return jnp.where(ramping, self.p0.value_at(step), self.p1.value_at(step))


class PiecewiseSchedule(BaseSchedule):
    """One schedule after another, each counting steps from its own boundary.

    Attributes:
      boundaries: steps, increasing, at least 0.
      schedules: one more than boundaries.

    Raises:
      ValueError: when built, if the lengths do not fit or the boundaries are not sorted.
    """

    boundaries: Sequence[int] | None = None
    schedules: Sequence[BaseSchedule] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pieces("PiecewiseSchedule", "schedules", self.schedules, self.boundaries)
        if any(boundary < 0 for boundary in self.boundaries or ()):
            raise ValueError(
                f"PiecewiseSchedule: boundaries {self.boundaries} hold a negative step."
            )

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        pieces = [schedule.value_at for schedule in self.schedules or ()]
        joined = optax.join_schedules(pieces, list(self.boundaries or ()))
        return jnp.asarray(joined(as_step(step)), jnp.float32)


class CycleSchedule(BaseSchedule):
    """Schedules that take turns; each sees the absolute step.

    Attributes:
      schedules: the schedules, in the order of their turns.
      steps: length of each turn in steps.

    Raises:
      ValueError: when built, if the lengths differ or are 0.
    """

    schedules: Sequence[BaseSchedule] | None = None
    steps: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        schedules, steps = self.schedules or (), self.steps or ()
        if not schedules or len(schedules) != len(steps):
            raise ValueError(
                f"CycleSchedule: {len(schedules)} schedules for {len(steps)} steps, "
                f"expected equal lengths of at least 1."
            )

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        ends = np.cumsum(list(self.steps or ()))
        turn = jnp.searchsorted(jnp.asarray(ends), as_step(step) % int(ends[-1]), side="right")
        return jnp.stack([schedule.value_at(step) for schedule in self.schedules or ()])[turn]

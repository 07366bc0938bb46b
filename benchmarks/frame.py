"""What all figures share: interleaved timing, comparison of numbers, rows of the table.

A figure is a module here with `measure(settings)`, which yields a `Row` for each line of the
table; the first line of its docstring is its title. Programs that are compared take turns, so that
other load on the machine slows all of them; a ratio is the median of the ratios of each turn.
"""

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Program = Callable[[], Any]

# Program whose times stand in the numerator.
OURS = "Pax"
# A turn of a program lasts at least this long: shorter calls are repeated within a turn. Seconds.
SHORTEST_TURN = 0.03


class DifferentNumbersError(AssertionError):
    """Two programs that are to be compared do not compute the same."""


class NotMeasuredError(RuntimeError):
    """Something needed is not there, such as a package; what is measured is left out."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How thoroughly to measure.

    Attributes:
      quick: Smaller programs and fewer turns, to see that everything runs.
    """

    quick: bool = False

    @property
    def turns(self) -> int:
        """Turns of each program."""
        return 5 if self.quick else 21

    @property
    def seconds(self) -> float:
        """Time for all turns of the programs of a row; three turns are always taken."""
        return 2.0 if self.quick else 30.0

    def choose(self, quick: Any, full: Any) -> Any:
        """The first of two values with `quick`, else the second."""
        return quick if self.quick else full


@dataclasses.dataclass(frozen=True)
class Limit:
    """A target: a number that a figure should not exceed, or not fall below."""

    bound: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def share(self, value: float) -> float:
        """How much of what is allowed a value takes: up to 1 is good."""
        if self.bound == 0:
            return 1.0 + value
        return self.bound / value if self.at_least else value / self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


def at_most(bound: float) -> Limit:
    return Limit(bound)


def at_least(bound: float) -> Limit:
    return Limit(bound, at_least=True)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      case: What is measured.
      values: A number for each program.
      unit: Of these numbers.
      judged: The number that the limit is for: a ratio, or a number of Pax.
      judged_unit: "x" for a ratio.
      spread: Quartiles of what `judged` is the median of; None for what does not vary.
      limit: The target; None for information.
      turns: Turns of each program.
      note: What else there is to know.
      cpu_ratio: The same ratio of processor time, of all threads: what other load on the machine
        disturbs less. None where the processor is not what is measured.
    """

    case: str
    values: Mapping[str, float]
    unit: str
    judged: float
    judged_unit: str = "x"
    spread: tuple[float, float] | None = None
    limit: Limit | None = None
    turns: int = 1
    note: str = ""
    cpu_ratio: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the target is met, "yes" or "NO"; empty without one."""
        return "" if self.limit is None else "yes" if self.limit.holds(self.judged) else "NO"


# ---- timing -------------------------------------------------------------------------------------


def seconds_of(
    program: Program, calls: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time of a call, its results included."""
    start = clock()
    for _ in range(calls):
        jax.block_until_ready(program())
    return (clock() - start) / calls


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of each call, turn by turn, by program; `cpu` is processor time."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def of(self, names: Mapping[str, str]) -> "Times":
        """Those of some programs, by other names."""
        return Times(
            *({new: times[old] for new, old in names.items()} for times in (self.wall, self.cpu))
        )


def take_turns(programs: Mapping[str, Program], settings: Settings) -> Times:
    """Times programs in turns; every program has to be warm.

    The order is reversed from turn to turn. Python's garbage is collected before, not within turns.
    """
    names = list(programs)
    first = {name: seconds_of(programs[name]) for name in names}
    calls = {name: max(1, math.ceil(SHORTEST_TURN / first[name])) for name in names}
    times = Times({name: [] for name in names}, {name: [] for name in names})
    start = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for turn in range(settings.turns):
            if turn >= 3 and time.perf_counter() - start > settings.seconds:
                break
            for name in names if turn % 2 else reversed(names):
                before = time.process_time()
                times.wall[name].append(seconds_of(programs[name], calls[name]))
                times.cpu[name].append((time.process_time() - before) / calls[name])
    finally:
        gc.enable()
    return times


def row_of_times(
    case: str,
    times: Times | Mapping[str, list[float]],
    *,
    limit: Limit | None = None,
    work: float | None = None,
    unit: str = "ms",
    scale: float = 1e3,
    note: str = "",
) -> Row:
    """Compares Pax with the fastest of the other programs, turn by turn.

    Args:
      case: What is measured.
      times: Seconds of each turn, or bytes and the like.
      limit: Of the ratio of times; with `work` of the ratio of rates.
      work: Units done in a call. With it the values are rates.
      unit: Of the values.
      scale: Values in this unit over the times given; not with `work`.
      note: As in `Row`.
    """
    cpu = times.cpu if isinstance(times, Times) else {}
    times = times.wall if isinstance(times, Times) else times
    medians = {name: statistics.median(column) for name, column in times.items()}
    others = [name for name in medians if name != OURS]
    best = min(others, key=medians.__getitem__)

    def ratios_of(times: Mapping[str, list[float]]) -> list[float]:
        pairs = zip(times[OURS], times[best], strict=True)
        return [theirs / ours if work else ours / theirs for ours, theirs in pairs]

    ratios = ratios_of(times)
    values = {name: work / time if work else time * scale for name, time in medians.items()}
    return Row(
        case,
        values,
        unit,
        judged=statistics.median(ratios),
        spread=quartiles(ratios),
        limit=limit,
        turns=len(ratios),
        note=note,
        cpu_ratio=statistics.median(ratios_of(cpu)) if cpu else None,
    )


def compare(
    case: str,
    programs: Mapping[str, Program],
    settings: Settings,
    *,
    limit: Limit | None = None,
    work: float | None = None,
    unit: str = "ms",
    note: str = "",
) -> Row:
    """Times programs in turns, see `row_of_times`."""
    times = take_turns(programs, settings)
    return row_of_times(case, times, limit=limit, work=work, unit=unit, note=note)


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and the third."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def temp_bytes(compiled: Any) -> int:
    """What a compiled program allocates besides its arguments and results."""
    analysis = compiled.memory_analysis()
    assert analysis is not None  # CPU, GPU and TPU give one
    return analysis.temp_size_in_bytes


# ---- comparison of numbers ----------------------------------------------------------------------


def same(what: str, results: Mapping[str, Any], *, rtol: float = 1e-4) -> None:
    """Checks that all programs give the same tree of numbers.

    Args:
      what: The numbers, for the error.
      results: A tree for each program.
      rtol: Largest norm of a difference, over the norm of the array; 0 for equality. Norms, since
        rounding that moves a hidden unit over the corner of a ReLU changes a gradient in one place.

    Raises:
      DifferentNumbersError: naming programs and numbers.
    """
    (first, expected), *others = results.items()
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(expected)]
    for name, result in others:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
        if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in expected]:
            raise DifferentNumbersError(f"{what}: {first} and {name} give arrays of other shapes.")
        for ours, theirs in zip(expected, leaves, strict=True):
            if not np.all(np.isfinite(ours)):
                raise DifferentNumbersError(f"{what}: {first} gives NaN or infinity.")
            error = np.linalg.norm((ours - theirs).ravel()) if rtol else 0.0
            tolerance = rtol * np.linalg.norm(ours.ravel())
            if not (error <= tolerance if rtol else np.array_equal(ours, theirs)):
                raise DifferentNumbersError(
                    f"{what}: {first} and {name} differ by {error:.2e}, more than {tolerance:.2e}: "
                    f"{ours.ravel()[:4]} and {theirs.ravel()[:4]}."
                )

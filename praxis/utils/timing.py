"""Wall time: a context manager that measures, and a decorator that logs."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from absl import logging

F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass
class RunningPeriod:
    """A period of time that has begun and may have ended; all in seconds.

    Attributes:
      start: Of a clock that never goes back.
      min_elapsed: Least value of `elapsed`, so that it can be divided by.
      end: None while the period lasts.
    """

    start: float
    min_elapsed: float = 0
    end: float | None = None

    @property
    def elapsed(self) -> float:
        """Length of the period, so far if it has not ended."""
        end = time.perf_counter() if self.end is None else self.end
        return max(end - self.start, self.min_elapsed)


@contextlib.contextmanager
def timeit(min_elapsed: float = 1e-6) -> Iterator[RunningPeriod]:
    """Measures the time spent inside.

    Example:
      >>> with timeit() as period:
      ...     total = sum(range(10))
      >>> period.elapsed > 0
      True
    """
    period = RunningPeriod(start=time.perf_counter(), min_elapsed=min_elapsed)
    try:
        yield period
    finally:
        period.end = time.perf_counter()


def benchmark(prefix: str = "", first_n: int | None = None) -> Callable[[F], F]:
    """Logs the wall time of the first `first_n` calls of a function, of all by default."""

    def decorate(fn: F) -> F:
        calls = 0

        @functools.wraps(fn)
        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if first_n is not None and calls > first_n:
                return fn(*args, **kwargs)
            with timeit() as period:
                result = fn(*args, **kwargs)
            logging.info("%s%s took %.6f seconds.", prefix, fn.__name__, period.elapsed)
            return result

        return timed  # pyright: ignore[reportReturnType]  # `wraps` keeps the signature.

    return decorate

"""One line that shows how far a run is."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.live
import rich.text

# Seconds between two lines where the output is a file, and between two refreshes of a terminal.
_LINE_SECS = 5.0
_REFRESH_SECS = 0.2
_BAR_WIDTH = 20


def duration_text(seconds: float | int) -> str:
    """Returns a duration as `h:mm:ss`, or `m:ss` below an hour.

    Example:
      >>> duration_text(75), duration_text(3675)
      ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def count_text(number: float | int) -> str:
    """Returns a count with three digits and k, M or G.

    Example:
      >>> count_text(12), count_text(12345)
      ('12', '12.3k')
    """
    for unit in ("", "k", "M", "G"):
        if abs(number) < 1000 or unit == "G":
            break
        number /= 1000
    return f"{number:.3g}{unit}"


class ProgressLine:
    """Shows step, loss, metrics, speed and time left, on one line.

    In a terminal the line is rewritten in place; elsewhere, and in a notebook, lines follow each
    other every few seconds. Values may be arrays still being computed: they are read when a line is
    drawn, so that most steps wait for nothing.

    Example:
      with ProgressLine(total_steps=1000, metrics=["accuracy"]) as line:
          for step in range(1, 1001):
              ...
              line.update(step, loss=loss, metrics={"accuracy": accuracy})
    """

    def __init__(
        self,
        total_steps: int,
        metrics: Sequence[str] = (),
        *,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the line.

        Args:
          total_steps: Last step; 0 if it is not known.
          metrics: Names of the metrics to show.
          console: Where to; by default standard error.
          clock: Returns the time in seconds.
        """
        self._total = total_steps
        self._metrics = tuple(metrics)
        self._console = console or rich.console.Console(stderr=True, highlight=False)
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._drawn = -math.inf
        self._latest: dict[str, Any] | None = None
        self._live: rich.live.Live | None = None
        if self._console.is_terminal:
            self._live = rich.live.Live(
                console=self._console, auto_refresh=False, redirect_stdout=False
            )
            self._live.start()

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def update(
        self,
        step: int,
        *,
        loss: Any = None,
        metrics: Mapping[str, Any] | None = None,
        steps_per_sec: float | int | None = None,
        tokens_per_sec: float | int | None = None,
    ) -> None:
        """Takes what is new; draws it if the last drawing was long enough ago.

        What is not given stays as it was.

        Args:
          step: Step after the update.
          loss: Scalar.
          metrics: Scalars or pairs (value, weight) by name.
          steps_per_sec: Steps per second; by default measured since the first update.
          tokens_per_sec: Tokens per second.
        """
        now = self._clock()
        if self._first is None:
            self._first = (now, step)
        given = {
            "loss": loss,
            "metrics": metrics,
            "steps_per_sec": steps_per_sec,
            "tokens_per_sec": tokens_per_sec,
        }
        known = self._latest or {}
        self._latest = {
            **known,
            **{name: value for name, value in given.items() if value is not None},
            "step": step,
        }
        if now - self._drawn >= (_REFRESH_SECS if self._live else _LINE_SECS):
            self._draw(now)

    def close(self) -> None:
        """Draws the last values and ends the line."""
        if self._latest is not None:
            self._draw(self._clock())
            self._latest = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, now: float | int) -> None:
        self._drawn = now
        text = rich.text.Text(self.line(now), no_wrap=True, overflow="ellipsis")
        if self._live is not None:
            self._live.update(text, refresh=True)
        else:
            self._console.print(text, soft_wrap=True)

    def line(self, now: float | int) -> str:
        """Returns the text of the line at a time of the clock."""
        latest = self._latest or {"step": 0}
        step = latest["step"]
        parts = [f"step {step}/{self._total}" if self._total else f"step {step}"]
        if self._live is not None and self._total:
            filled = round(_BAR_WIDTH * min(step / self._total, 1))
            parts.insert(0, "━" * filled + "╌" * (_BAR_WIDTH - filled))
        if "loss" in latest:
            parts.append(f"loss {_number(latest['loss']):.4g}")
        metrics = latest.get("metrics", {})
        parts += [
            f"{name} {_number(metrics[name]):.4g}" for name in self._metrics if name in metrics
        ]
        speed = latest.get("steps_per_sec") or self._measured_speed(now, step)
        if speed:
            parts.append(f"{speed:.3g} steps/s")
        if "tokens_per_sec" in latest:
            parts.append(f"{count_text(latest['tokens_per_sec'])} tokens/s")
        if speed and step < self._total:
            parts.append(f"{duration_text((self._total - step) / speed)} left")
        return "  ".join(parts)

    def _measured_speed(self, now: float | int, step: int) -> float | None:
        if self._first is None or now <= self._first[0]:
            return None
        start, first_step = self._first
        return (step - first_step) / (now - start)


def _number(value: Any) -> float:
    """Returns a scalar, or the value of a pair (value, weight)."""
    return float(np.mean(np.asarray(value[0] if isinstance(value, tuple) else value, np.float64)))

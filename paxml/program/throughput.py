"""How fast training goes."""

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Speed:
    """Means over the steps since the last measurement.

    Attributes:
      steps_per_sec: Steps per second, whatever came in between included.
      tokens_per_sec: Tokens per second of all processes; 0 where batches hold none.
      utilization: Share of the devices' peak that the model's own arithmetic takes; None where the
        peak is not known.
      input_wait_secs: Seconds that a step waited for its batch.
    """

    steps_per_sec: float
    tokens_per_sec: float
    utilization: float | None
    input_wait_secs: float

    def values(self) -> dict[str, float]:
        """Returns what there is besides steps per second, by the name in summaries."""
        values = {"input_wait_secs_per_step": self.input_wait_secs}
        if self.tokens_per_sec:
            values["tokens_per_sec"] = self.tokens_per_sec
        if self.utilization is not None:
            values["model_flops_utilization"] = self.utilization
        return values


class SpeedMeter:
    """Measures the speed at each multiple of an interval of steps."""

    def __init__(
        self,
        interval_steps: int,
        init_step: int,
        *,
        utilization_per_step_rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
          interval_steps: Steps between measurements, 0 for none.
          init_step: Number of updates already applied.
          utilization_per_step_rate: Utilization at one step per second, if known.
          clock: Returns the time in seconds.
        """
        self._interval = interval_steps
        self._utilization_per_step_rate = utilization_per_step_rate
        self._clock = clock
        self._start(init_step)
        self.latest: Speed | None = None

    def count(self, step: int, *, tokens: int, input_wait_secs: float) -> Speed | None:
        """Takes one run of the program.

        Args:
          step: Number of updates applied.
          tokens: Tokens in the batch of the run.
          input_wait_secs: Seconds that it waited for the batch.

        Returns:
          The speed if this step is one to measure at, else None.
        """
        self._tokens += tokens
        self._waited += input_wait_secs
        if not self._interval or step % self._interval or step == self._first:
            return None
        secs = max(self._clock() - self._since, 1e-9)
        steps = step - self._first
        rate = self._utilization_per_step_rate
        self.latest = Speed(
            steps_per_sec=steps / secs,
            tokens_per_sec=self._tokens / secs,
            utilization=None if rate is None else rate * steps / secs,
            input_wait_secs=self._waited / steps,
        )
        self._start(step)
        return self.latest

    def _start(self, step: int) -> None:
        self._since, self._first = self._clock(), step
        self._tokens, self._waited = 0, 0.0

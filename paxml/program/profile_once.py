"""One profile of a program, at the step that its settings name."""

import time

from etils import epath

from paxml.program.profiler import Profiler
from paxml.task.settings import Decode, Train


class ProfileOnce:
    """Times steps, and captures a profile when the step comes."""

    def __init__(self, settings: Train | Decode, job_log_dir: epath.PathLike, tag: str) -> None:
        """Reads the settings that start with `profiler_`.

        Args:
          settings: Those of the program; no step, or a length of 0 steps, takes no profile.
          job_log_dir: Profiles are written below it.
          tag: For log lines.
        """
        self._capture_step = settings.profiler_capture_step
        self._profiler = None
        self._started: float | None = None
        if self._capture_step is not None and settings.profiler_num_steps:
            self._profiler = Profiler(
                num_steps=settings.profiler_num_steps,
                min_duration_sec=settings.profiler_min_duration_sec,
                tag=tag,
                max_num_hosts=settings.profiler_max_num_hosts,
                capture_host_profile=isinstance(settings, Train)
                and settings.profiler_capture_host_profile,
                log_dir=job_log_dir,
            )

    def before_step(self, number: int) -> None:
        """Takes notice of a step that begins; `number` counts as the setting does."""
        if self._profiler is None:
            return
        now = time.monotonic()
        if self._started is not None:
            self._profiler.update_step_moving_mean(now - self._started)
        self._started = now
        if number == self._capture_step:
            self._capture_step = None
            self._profiler.capture_async()

    def close(self) -> None:
        """Ends a profile that is under way, and waits until it is written."""
        if self._profiler is not None:
            self._profiler.close()

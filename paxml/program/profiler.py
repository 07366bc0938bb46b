"""Profiles of a few steps, for TensorBoard, XProf or Perfetto."""

import os
import threading

import jax
from absl import logging

_PYTHON_TRACER_ON = 1


class Profiler:
    """Captures what devices and host do over some steps, while these go on.

    Profiles lie in `<log_dir>/plugins/profile/<time>/`, where TensorBoard's profile plugin finds
    them.

    Example:
      profiler = Profiler(num_steps=3, log_dir=job_log_dir)
      for step in range(10):
          started = time.monotonic()
          if step == 5:
              profiler.capture_async()
          ...
          profiler.update_step_moving_mean(time.monotonic() - started)
      profiler.close()
    """

    def __init__(
        self,
        num_steps: float | int = 2.0,
        min_duration_sec: float | int = 1.0,
        default_duration_sec: float | int = 5.0,
        tag: str | None = None,
        max_num_hosts: int | None = None,
        capture_host_profile: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
          num_steps: Length of a profile in steps, by the mean of their durations so far.
          min_duration_sec: Least length, seconds.
          default_duration_sec: Length while no step has been timed, seconds.
          tag: For log lines.
          max_num_hosts: How many processes take a profile, the first ones; None: all.
          capture_host_profile: Whether calls of Python functions are recorded too.
          log_dir: Where profiles go; None captures nothing.
        """
        self._num_steps = num_steps
        self._min_duration_sec = min_duration_sec
        self._default_duration_sec = default_duration_sec
        self._tag = tag or "profile"
        self._max_num_hosts = max_num_hosts
        self._capture_host_profile = capture_host_profile
        self._log_dir = log_dir
        self._total_secs = 0.0
        self._num_timed = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def step_duration_estimate_sec(self) -> float:
        """Mean duration of a step so far, seconds; 0 before the first."""
        return self._total_secs / self._num_timed if self._num_timed else 0.0

    def update_step_moving_mean(self, duration_sec: float | int) -> None:
        """Takes the duration of a step, seconds."""
        self._total_secs += duration_sec
        self._num_timed += 1

    def capture_async(self) -> None:
        """Starts a profile, which ends by itself; at once returns to the caller.

        A profile that cannot be taken, because another is under way or the disk is full, is a
        warning in the log.
        """
        beyond = self._max_num_hosts is not None and jax.process_index() >= self._max_num_hosts
        if self._log_dir is None or beyond:
            return
        if self._thread is not None and self._thread.is_alive():
            logging.warning("%s: a profile is under way; another is not started.", self._tag)
            return
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = _PYTHON_TRACER_ON if self._capture_host_profile else 0
        try:
            jax.profiler.start_trace(os.fspath(self._log_dir), profiler_options=options)
        except (RuntimeError, OSError) as error:
            logging.warning("%s: no profile is taken: %s", self._tag, error)
            return
        self._ended.clear()
        self._thread = threading.Thread(target=self._end_later, name="profiler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends a profile that is under way, and waits until it is written."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def duration_sec(self) -> float:
        """How long a profile started now would take, seconds."""
        estimate = self._num_steps * self.step_duration_estimate_sec
        return max(estimate or self._default_duration_sec, self._min_duration_sec)

    def _end_later(self) -> None:
        self._ended.wait(self.duration_sec())
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError) as error:
            logging.warning("%s: the profile is lost: %s", self._tag, error)
            return
        logging.info("%s: a profile is in %s/plugins/profile", self._tag, self._log_dir)

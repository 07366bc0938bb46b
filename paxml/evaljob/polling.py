"""Waiting for checkpoints of a training that goes on elsewhere."""

import dataclasses
import time

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.steps import ReadableSteps
from paxml.program.status import FINISHED, read_training_sign


@dataclasses.dataclass(frozen=True)
class Polling:
    """How long a job waits, in seconds.

    Attributes:
      interval_secs: Between two looks for a checkpoint.
      first_timeout_secs: For the first checkpoint.
      training_lost_secs: For a sign of a training that was stopped, or fell silent.
      training_longer_secs: For a training that has finished with another number of steps than the
        job was told, and may be about to go on with more.
    """

    interval_secs: int | float = 60.0
    first_timeout_secs: int | float = 80 * 60.0
    training_lost_secs: int | float = 80 * 60.0
    training_longer_secs: int | float = 3 * 60.0


class NewCheckpoints:
    """Finds the checkpoints of a training one after the other; all processes find the same."""

    def __init__(
        self, directory: epath.PathLike, num_train_steps: int | float, polling: Polling
    ) -> None:
        """Remembers where to look.

        Args:
          directory: Of the checkpoints, in the log directory of the training.
          num_train_steps: After the checkpoint of this step there is no other.
          polling: How long to wait.
        """
        self._directory = epath.Path(directory)
        self._num_train_steps = int(num_train_steps)
        self._polling = polling
        self._warned: set[str] = set()

    def latest(self) -> int | None:
        """The newest step with a complete checkpoint, or None."""
        return _latest(self._directory, self._warned)

    def first(self, at_least: int = 0) -> int:
        """The newest step, once it is at least so much.

        Raises:
          TimeoutError: if it takes too long.
        """
        deadline = time.monotonic() + self._polling.first_timeout_secs
        while (step := self.latest()) is None or step < at_least:
            if _as_in_first_process(int(time.monotonic() > deadline)):
                raise TimeoutError(
                    f"{self._directory} has no checkpoint of step {at_least} or later after "
                    f"{self._polling.first_timeout_secs:g} seconds; the newest is of step {step}. "
                    "Check job_log_dir, and that training runs."
                )
            logging.info("Waiting for a checkpoint in %s.", self._directory)
            time.sleep(self._polling.interval_secs)
        return step

    def newer_than(self, step: int) -> int | None:
        """The newest step, once it is later than `step`; None when none can follow."""
        while True:
            # Asked before looking: a checkpoint written in between is then still found.
            end = self.end_of_training(step)
            latest = self.latest()
            if latest is not None and latest > step:
                return latest
            if _as_in_first_process(int(end is not None)):
                logging.info("No checkpoint follows that of step %d: %s.", step, end)
                return None
            logging.info("Waiting for a checkpoint after that of step %d.", step)
            time.sleep(self._polling.interval_secs)

    def end_of_training(self, step: int) -> str | None:
        """Why no checkpoint follows that of `step`, None if one may."""
        if step >= self._num_train_steps:
            return f"num_train_steps is {self._num_train_steps}"
        sign = read_training_sign(self._directory.parent)
        if sign is None:
            return None
        if sign.state == FINISHED and sign.num_train_steps == self._num_train_steps:
            return "training has finished"
        if sign.state == FINISHED and sign.age_secs > self._polling.training_longer_secs:
            return (
                f"training has finished with num_train_steps = {sign.num_train_steps}, while this "
                f"job was told {self._num_train_steps}"
            )
        if sign.age_secs > self._polling.training_lost_secs:
            return f"training is {sign.state} and was last heard of {sign.age_secs:.0f} seconds ago"
        return None


def latest_step(directory: epath.PathLike) -> int:
    """The newest step with a complete checkpoint.

    Raises:
      ValueError: if there is none.
    """
    step = _latest(epath.Path(directory), set())
    if step is None:
        raise ValueError(f"No complete checkpoint was found in directory {str(directory)!r}.")
    return step


def _latest(directory: epath.Path, warned: set[str]) -> int | None:
    step = None
    if jax.process_index() == 0:
        step = ReadableSteps(CheckpointType.GDA, warned=warned).latest(directory)
    return _as_in_first_process(step)


def _as_in_first_process(value: int | None) -> int | None:
    if jax.process_count() == 1:
        return value
    known = int(multihost_utils.broadcast_one_to_all(np.int64(-1 if value is None else value)))
    return None if known < 0 else known

"""Tells the jobs beside training whether it is alive, and how it ended."""

import json
import threading
import time
from typing import NamedTuple

import jax
from absl import logging
from etils import epath

DIRECTORY = "_internal_artifacts"
FILE_NAME = "_train_status.json"
BEAT_SECS = 60.0

RUNNING = "running"
FINISHED = "finished"
STOPPED = "stopped"


class TrainingSign(NamedTuple):
    """What training last said about itself.

    Attributes:
      state: `running`; `finished`, when no step is left or it was stopped early; `stopped`, by a
        signal or an error, after which it may come back.
      num_train_steps: Steps that it was to do.
      age_secs: Time since then, in seconds. A training that is alive says so each minute.
    """

    state: str
    num_train_steps: int
    age_secs: float


class TrainingStatus:
    """Keeps a small file up to date while training runs, in the first process.

    Not being able to write it stops nothing.
    """

    def __init__(self, job_log_dir: epath.PathLike, num_train_steps: int | float) -> None:
        self._path = epath.Path(job_log_dir) / DIRECTORY / FILE_NAME
        self._num_train_steps = int(num_train_steps)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="training_status", daemon=True)
        self._writes = jax.process_index() == 0

    def __enter__(self) -> "TrainingStatus":
        if self._writes:
            self._write(RUNNING)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._writes:
            self._ended.set()
            self._thread.join()
            self._write(FINISHED if kind is None else STOPPED)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECS):
            self._write(RUNNING)

    def _write(self, state: str) -> None:
        text = json.dumps({"state": state, "num_train_steps": self._num_train_steps})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_name(f"{self._path.name}.tmp")
            temporary.write_text(text)
            temporary.replace(self._path)
        except OSError as error:
            logging.warning("Cannot write %s: %s.", self._path, error)


def read_training_sign(job_log_dir: epath.PathLike) -> TrainingSign | None:
    """What training last said, None if it never did or is older than this file."""
    path = epath.Path(job_log_dir) / DIRECTORY / FILE_NAME
    try:
        values = json.loads(path.read_text())
        age = time.time() - path.stat().mtime
        return TrainingSign(str(values["state"]), int(values["num_train_steps"]), age)
    except (OSError, ValueError, KeyError):
        return None

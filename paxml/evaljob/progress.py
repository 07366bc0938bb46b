"""Which checkpoint a job is at, so that one that was stopped goes on with the same."""

import contextlib
import json
from collections.abc import Iterator

import jax
from absl import logging
from etils import epath

from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.paths import PaxStepNameFormat, retrieve_latest_checkpoint_step_if_exists
from paxml.output.formats import EvaluationMode
from paxml.program.status import DIRECTORY

STEP_KEY = "restore_checkpoint_step"


def progress_file(job_log_dir: epath.PathLike, mode: EvaluationMode) -> epath.Path:
    """The file of a kind of job."""
    return epath.Path(job_log_dir) / DIRECTORY / f"_{mode.value}_progress.json"


@contextlib.contextmanager
def checkpoint_progress(
    job_log_dir: epath.PathLike, checkpoint_step: int | None, mode: EvaluationMode
) -> Iterator[None]:
    """Notes the step while a checkpoint is worked on; an exception leaves the note.

    A note of the same step stays as it is: its time tells which outputs are newer.

    Args:
      job_log_dir: The log directory.
      checkpoint_step: The step; None notes nothing.
      mode: Kind of job.
    """
    if checkpoint_step is None or jax.process_index() != 0:
        yield
        return
    path = progress_file(job_log_dir, mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    if interrupted_step(job_log_dir, mode) != checkpoint_step:
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(json.dumps({STEP_KEY: int(checkpoint_step)}))
        temporary.replace(path)
    yield
    path.unlink(missing_ok=True)


def interrupted_step(job_log_dir: epath.PathLike, mode: EvaluationMode) -> int | None:
    """The step that a job was at when it was stopped, or None."""
    path = progress_file(job_log_dir, mode)
    try:
        return int(json.loads(path.read_text())[STEP_KEY])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        logging.warning("%s is damaged and is ignored.", path)
        return None


def get_checkpoint_step(
    job_log_dir: epath.PathLike,
    restore_checkpoint_dir: epath.PathLike,
    mode: EvaluationMode,
    checkpoint_type: CheckpointType | None = None,
) -> int | None:
    """The step to begin with: where a job was stopped, if that checkpoint is left, or the newest.

    Args:
      job_log_dir: The log directory.
      restore_checkpoint_dir: Directory of the checkpoints.
      mode: Kind of job.
      checkpoint_type: Has no effect: all kinds are found.

    Returns:
      The step, None if there is no checkpoint.
    """
    del checkpoint_type
    step = interrupted_step(job_log_dir, mode)
    if step is not None:
        if PaxStepNameFormat().find_metadata(restore_checkpoint_dir, step) is not None:
            return step
        logging.warning(
            "A job stopped at step %d, but %s has no such checkpoint any more; taking the newest.",
            *(step, restore_checkpoint_dir),
        )
    return retrieve_latest_checkpoint_step_if_exists(restore_checkpoint_dir)

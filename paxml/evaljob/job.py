"""A job that runs programs on checkpoints; it trains nothing."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from paxml.checkpoint.manager import Checkpointer
from paxml.evaljob.progress import (
    checkpoint_progress,
    get_checkpoint_step,
    interrupted_step,
    progress_file,
)
from paxml.experiment.base import BaseExperiment
from paxml.output.formats import EvaluationMode
from paxml.output.write import written_outputs
from paxml.partitioning.base import Partitioner
from paxml.program import early_stop
from paxml.program.base import get_eval_train_state
from paxml.program.rounds import run_decode_programs, run_eval_programs
from paxml.summary.tables import num_parameters
from paxml.task.exclusion import has_ema
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer.init import get_train_input_specs_for_model_init
from paxml.trainer.inputs import check_unique_names, get_inputs_shape_dtype
from paxml.trainer.types import RunningMode


class MissingCheckpointError(ValueError):
    """There is no checkpoint of a step."""


class EvaluationJob:
    """Programs that are set up, to be run on one checkpoint after the other.

    Use it with `with`: it closes the programs.
    """

    def __init__(
        self,
        task: SingleTask,
        partitioner: Partitioner,
        job_log_dir: epath.PathLike,
        checkpoint_dir: epath.PathLike,
        *,
        mode: EvaluationMode,
        eval_programs: Sequence[Any] = (),
        decode_programs: Sequence[Any] = (),
        early_stopping_fn: Callable[..., bool] | None = None,
    ) -> None:
        """Takes the parts; `set_up_programs` opens them.

        Args:
          task: The task.
          partitioner: A partitioner that is set up.
          job_log_dir: Where event files and outputs go.
          checkpoint_dir: Where the checkpoints are.
          mode: Kind of the job: its progress file is called after it.
          eval_programs: Run on each checkpoint.
          decode_programs: Run on each checkpoint, before the evaluation programs.
          early_stopping_fn: Called after each checkpoint; True ends the job.

        Raises:
          ValueError: if there is a function for early stopping in the task too.
        """
        self._task = task
        self._partitioner = partitioner
        self._job_log_dir = epath.Path(job_log_dir)
        self.checkpoint_dir = epath.Path(checkpoint_dir)
        self._mode = mode
        self._eval_programs, self._decode_programs = list(eval_programs), list(decode_programs)
        self._early_stopping_fn = early_stop.choose(task, early_stopping_fn)
        self._interrupted_step = interrupted_step(job_log_dir, mode)
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> "EvaluationJob":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def set_up_programs(
        self, seed: int, *, output_pickle: bool = True, enable_summary_writer: bool = True
    ) -> None:
        """Opens inputs and event files.

        Args:
          seed: Of all randomness.
          output_pickle: Whether decoding writes a pickle beside the JSON lines.
          enable_summary_writer: Whether event files are written.

        Raises:
          ValueError: if two inputs have one name.
        """
        # The second key would be that of new weights, which a job never makes.
        root_key, _ = jax.random.split(jax.random.PRNGKey(seed))
        decode_key, eval_key = jax.random.split(root_key)
        common = (self._task, self._partitioner, self._job_log_dir)
        for program in self._decode_programs:
            self._opened.callback(program.shutdown)
            program.setup(
                *common, decode_key, output_pickle, enable_summary_writer=enable_summary_writer
            )
        for program in self._eval_programs:
            self._opened.callback(program.shutdown)
            program.setup(*common, eval_key, enable_summary_writer=enable_summary_writer)
        check_unique_names([program.decode_input for program in self._decode_programs])
        check_unique_names([program.eval_input for program in self._eval_programs])

    def first_step(self, latest: int) -> int:
        """Where an earlier job was stopped, if that checkpoint is left, or else `latest`."""
        if self._interrupted_step is None:
            return latest
        return get_checkpoint_step(self._job_log_dir, self.checkpoint_dir, self._mode) or latest

    def run(self, step: int, *, is_last: bool) -> bool:
        """Runs all programs on the checkpoint of a step.

        On the step at which an earlier job was stopped, inputs that it had finished are left out.

        Args:
          step: The step.
          is_last: Whether no other checkpoint is to follow.

        Returns:
          Whether to stop early.
        """
        since = None
        if step == self._interrupted_step:
            since = progress_file(self._job_log_dir, self._mode).stat().mtime
        with checkpoint_progress(self._job_log_dir, step, self._mode):
            state = restore_for_evaluation(self._task, self._partitioner, self.checkpoint_dir, step)
            decodes = [
                program
                for program in self._decode_programs
                if not self._is_done(program.decode_input.name, EvaluationMode.DECODE, step, since)
            ]
            evals = [
                program
                for program in self._eval_programs
                if not self._is_done(program.eval_input.name, EvaluationMode.EVAL, step, since)
            ]
            metrics = run_decode_programs(decode_programs=decodes, train_state=state, step=step)
            metrics |= run_eval_programs(eval_programs=evals, train_state=state, step=step)
        self._interrupted_step = None
        if self._early_stopping_fn is None:
            return False
        shapes = self._partitioner.get_train_state_metadata(discard_opt_states=True)
        metrics["num_params"] = float(num_parameters(shapes.var_weight_hparams))
        mode = RunningMode.detect(
            has_train=False,
            has_eval=bool(self._eval_programs),
            has_decode=bool(self._decode_programs),
        )
        return self._early_stopping_fn(metrics, mode, step, is_last, self.checkpoint_dir)

    def _is_done(
        self, name: str, mode: EvaluationMode, step: int, since: int | float | None
    ) -> bool:
        """Whether a job that began at `since` has written the outputs of an input."""
        path = written_outputs(self._job_log_dir, name, mode, step)
        done = since is not None and path.exists() and path.stat().mtime >= since
        if done:
            logging.info("Input %s was finished at step %d before; see %s.", name, step, path)
        return done


def restore_for_evaluation(
    task: SingleTask, partitioner: Partitioner, checkpoint_dir: epath.PathLike, step: int
) -> TrainState:
    """The weights of a checkpoint, or their moving average where the learner keeps one.

    Raises:
      MissingCheckpointError: if there is none of this step, naming those that there are.
      UnreadableCheckpointError: if it is incomplete or damaged.
      CheckpointMismatchError: if it holds other arrays than the model wants.
    """
    uses_ema = has_ema(task)
    if uses_ema:
        logging.info(
            "The learner of task %s keeps a moving average of the weights: this job uses it, "
            "whatever eval_use_ema_states and decode_use_ema_states say.",
            task.name,
        )
    shapes = partitioner.get_train_state_metadata(discard_opt_states=not uses_ema)
    checkpointer = Checkpointer(
        checkpoint_dir, save_interval_steps=None, max_to_keep=None, async_save=False, read_only=True
    )
    with contextlib.closing(checkpointer):
        available = checkpointer.all_steps()
        if step not in [*available, *checkpointer.damaged_steps()]:
            raise MissingCheckpointError(
                f"{checkpoint_dir} has no checkpoint of step {step}; there are those of steps "
                f"{available}."
            )
        state = checkpointer.restore(
            step,
            partitioner.abstract_train_state(discard_opt_states=not uses_ema),
            unpadded_shapes=shapes.unpadded_global_shapes,
            partial=True,
        )
    return get_eval_train_state(task, state, uses_ema)


def input_specs(experiment: BaseExperiment, task: SingleTask, input_p: Any) -> Any:
    """Specs of the global batch that the shapes of the variables are found with.

    That is a training batch, unless the task says that evaluation has variables of its own.
    """
    if task.train.always_use_train_for_model_init:
        provider = experiment.get_input_specs_provider_params().Instantiate()
        return get_train_input_specs_for_model_init(task, provider)
    return get_inputs_shape_dtype(input_p)[1]

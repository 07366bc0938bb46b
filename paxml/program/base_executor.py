"""What an executor does."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from paxml.checkpoint.manager import Checkpointer
from paxml.partitioning.base import Partitioner
from paxml.program.evaluate import BaseEvalProgram
from paxml.program.train import BaseTrainProgram
from paxml.task.single_task import SingleTask
from praxis import base_input, pax_fiddle


class BaseExecutor(abc.ABC):
    """Interleaves training, evaluation, decoding and checkpoints."""

    @abc.abstractmethod
    def setup(
        self,
        jax_task: SingleTask,
        job_log_dir: epath.PathLike,
        checkpointer: Checkpointer | None,
        partitioner: Partitioner,
        input_specs_provider: base_input.BaseInputSpecsProvider,
        train_input_p: pax_fiddle.Config[base_input.BaseInput],
        train_program: BaseTrainProgram,
        eval_programs: Sequence[BaseEvalProgram],
        decode_programs: Sequence[Any],
        early_stopping_fn: Callable[..., bool] | None,
        exit_after_ondemand_checkpoint: bool = False,
        enable_summary_writer: bool = True,
    ) -> None:
        """Makes or restores the state and opens the programs.

        Args:
          jax_task: The task.
          job_log_dir: Where everything is written.
          checkpointer: Saves and restores; None does neither.
          partitioner: Places the task on devices.
          input_specs_provider: Knows the shapes of a batch.
          train_input_p: Config of the training input.
          train_program: Runs the training steps.
          eval_programs: Run at the evaluation interval.
          decode_programs: Run at the decoding interval.
          early_stopping_fn: Called after each step; True ends training.
          exit_after_ondemand_checkpoint: Whether a termination signal ends with exit code 1.
          enable_summary_writer: Whether event files are written.
        """

    @abc.abstractmethod
    def start(self) -> None:
        """Trains to the end."""

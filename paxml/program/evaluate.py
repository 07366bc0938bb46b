"""Evaluation programs: metrics over the batches of one input."""

import abc
import contextlib
import time
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from paxml.metric.values import merge_clu_metrics
from paxml.output.formats import EvaluationMode
from paxml.output.write import maybe_write_eval_outputs
from paxml.partitioning.base import PartitionedStepFn, Partitioner
from paxml.partitioning.create import get_step_fn
from paxml.program.base import EvalProgramOutput, Program, get_summary_base_dir
from paxml.program.batches import global_batch_size, reduce_scalars, with_texts
from paxml.program.eval_batches import eval_batches
from paxml.summary.handler import SummaryHandler
from paxml.summary.writer import get_summary_writer
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer.inputs import get_input_partition_specs
from paxml.trainer.types import BaseStepFnStaticArgs, RunningMode, StepFnOutput
from praxis import base_input, pax_fiddle
from praxis.utils import trees


class BaseEvalProgram(Program):
    """Evaluates on one input. A subclass says what a step is."""

    def __init__(self, input_p: pax_fiddle.Config[base_input.BaseInput]) -> None:
        """Takes the config of the input; it is opened in `setup`."""
        self._input_p = input_p
        self._input: base_input.BaseInput | None = None
        self._opened = contextlib.ExitStack()

    def setup(
        self,
        task: SingleTask,
        partitioner: Partitioner,
        job_log_dir: epath.PathLike,
        eval_prng_seed: jax.Array,
        enable_summary_writer: bool = True,
    ) -> None:
        """Opens the input and the event file.

        Args:
          task: The task.
          partitioner: A partitioner that is set up.
          job_log_dir: Where event files and outputs go.
          eval_prng_seed: Evaluation key of the run, the same for all batches of a step.
          enable_summary_writer: Whether event files are written.
        """
        self._task = task
        self._partitioner = partitioner
        self._job_log_dir = epath.Path(job_log_dir)
        self._eval_key = partitioner.preprocess_prng_key(eval_prng_seed)
        self._input = partitioner.preprocess_input_config(self._input_p).Instantiate()
        self._static_args = BaseStepFnStaticArgs(
            unpadded_global_batch_size=global_batch_size(self.eval_input)
        )
        self._writer = get_summary_writer(
            get_summary_base_dir(job_log_dir) / f"eval_test_{self.eval_input.name}",
            enable_summary_writer,
        )
        self._opened.callback(self._writer.close)
        self._summaries = SummaryHandler(
            self._writer,
            write_interval_steps=1,
            is_async=False,
            name=self.eval_input.name,
            metrics_prefix=task.decode.metrics_prefix,
        )
        self._opened.callback(self._summaries.close)

    @property
    def eval_input(self) -> base_input.BaseInput:
        """The input."""
        if self._input is None:
            raise ValueError(f"{type(self).__name__} is used before setup().")
        return self._input

    def should_run(self, state: TrainState, step: int) -> bool:
        del state
        interval = self._task.train.eval_interval_steps
        return bool(interval) and step % interval == 0

    def run(self, state: TrainState, step: int) -> EvalProgramOutput:
        """Evaluates as many batches as the input says.

        Raises:
          ValueError: if the input has no batch, or fewer than its `eval_loop_num_batches`.
        """
        started = time.monotonic()
        losses, scalars, clu_metrics, outputs = [], [], {}, []
        out = waiting = None
        batches = eval_batches(
            self.eval_input, self._partitioner, self.eval_input_partition_spec, what="Evaluation"
        )
        for batch, texts in batches:
            _, out = self.eval_step(state, self._eval_key, batch, self._static_args)
            losses.append(out.loss)
            scalars.append(out.weighted_scalars)
            clu_metrics = merge_clu_metrics(clu_metrics, out.clu_metrics or {})
            # Copied one batch late: the devices have the next step by then.
            if waiting is not None:
                outputs.append(with_texts(*waiting))
            waiting = (out.per_example_out, texts)
        if out is None or waiting is None:
            raise ValueError(
                f"Evaluation input {self.eval_input.name!r} gave no batch at step {step}. Check "
                "that it has data and that a finite input sets reset_for_eval = True."
            )
        outputs.append(with_texts(*waiting))
        loss = float(np.mean(jax.device_get(losses)))
        metrics = reduce_scalars(self._task, scalars)
        self._summaries.process(
            step, loss, metrics, out.summary_tensors, clu_metrics=clu_metrics or None
        )
        self._writer.flush()
        maybe_write_eval_outputs(
            EvaluationMode.EVAL,
            self._job_log_dir / EvaluationMode.EVAL.output_dir_name / self.eval_input.name,
            step,
            outputs,
        )
        values = {key: float(value) for key, (value, _) in metrics.items()}
        logging.info(
            "Evaluated %s at step %d: %d batches in %.1f s, loss %.6g",
            *(self.eval_input.name, step, len(losses), time.monotonic() - started, loss),
        )
        return EvalProgramOutput(
            state=state, eval_metrics={"loss": loss, **values}, num_eval_steps=len(losses)
        )

    @abc.abstractmethod
    def eval_step(
        self, state: TrainState, prng_key: jax.Array, inputs: Any, static_args: BaseStepFnStaticArgs
    ) -> tuple[None, StepFnOutput]:
        """Evaluates a batch."""

    @abc.abstractmethod
    def eval_input_partition_spec(self, inputs: Any) -> Any:
        """Shardings of a batch."""

    def shutdown(self) -> None:
        self._input = None
        self._opened.close()


class SingleTaskEvalProgram(BaseEvalProgram):
    """Evaluates by the evaluation step of `paxml.trainer_lib`."""

    def __init__(self, input_p: pax_fiddle.Config[base_input.BaseInput]) -> None:
        """Takes the config of the input; it is opened in `setup`."""
        super().__init__(input_p)
        self._step: PartitionedStepFn | None = None

    def eval_step(
        self, state: TrainState, prng_key: jax.Array, inputs: Any, static_args: BaseStepFnStaticArgs
    ) -> tuple[None, StepFnOutput]:
        if self._step is None:
            self._step, _ = self._partitioner.partition(
                get_step_fn(RunningMode.EVAL), trees.get_shape_dtype(inputs), is_eval=True
            )
        return None, self._step(state, prng_key, inputs, static_args)[1]

    def eval_input_partition_spec(self, inputs: Any) -> Any:
        return get_input_partition_specs(self._partitioner.global_mesh.axis_names, inputs)

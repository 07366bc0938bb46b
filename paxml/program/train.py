"""Training programs: one or more updates a run, with summaries and the next batch evaluated."""

import abc
import collections
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from paxml.partitioning.base import PartitionedStepFn, Partitioner
from paxml.partitioning.create import get_step_fn
from paxml.program.anomaly import AnomalyWatch, diagnose
from paxml.program.base import (
    Program,
    TrainProgramOutput,
    get_eval_train_state,
    get_summary_base_dir,
)
from paxml.program.batches import global_batch_size, numeric_only, tokens_of
from paxml.program.prefetch import TrainBatches
from paxml.program.profile_once import ProfileOnce
from paxml.program.report import TrainReport
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer.flops import utilization_per_step_rate
from paxml.trainer.inputs import get_input_partition_specs
from paxml.trainer.types import BaseStepFnStaticArgs, RunningMode, StepFnOutput
from praxis import base_input
from praxis.utils import trees


class _Sent(NamedTuple):
    """A step that was sent to the devices."""

    step: int
    out: StepFnOutput
    batch: Any


class BaseTrainProgram(Program):
    """Trains on the batches of one input.

    A subclass says what a step is. Steps are sent to the devices ahead of their results: the host
    waits only for the loss of `max_inflight_steps` steps ago.
    """

    def __init__(self) -> None:
        self._first_result_callback: Callable[[Any], None] | None = None
        self._pending: collections.deque[_Sent] = collections.deque()
        self._state: TrainState | None = None  # after the latest step
        self._checked_specs = False
        self._is_set_up = False

    def setup(
        self,
        task: SingleTask,
        train_input: base_input.BaseInput,
        partitioner: Partitioner,
        job_log_dir: epath.PathLike,
        train_prng_seed: jax.Array,
        eval_prng_seed: jax.Array,
        init_step: int,
        enable_summary_writer: bool = True,
    ) -> None:
        """Opens the event files and starts fetching batches.

        Args:
          task: The task.
          train_input: The input, at the position to continue from.
          partitioner: A partitioner that is set up.
          job_log_dir: Where event files go.
          train_prng_seed: Training key of the run.
          eval_prng_seed: Evaluation key of the run.
          init_step: Number of updates already applied.
          enable_summary_writer: Whether event files are written.
        """
        self._task = task
        self._train_input = train_input
        self._partitioner = partitioner
        self._train_key = partitioner.preprocess_prng_key(train_prng_seed)
        self._eval_key = partitioner.preprocess_prng_key(eval_prng_seed)
        self._batch_size = global_batch_size(train_input)
        self._static_args = BaseStepFnStaticArgs(unpadded_global_batch_size=self._batch_size)
        self._report = TrainReport(
            task.train,
            get_summary_base_dir(job_log_dir),
            init_step=init_step,
            enable_summary_writer=enable_summary_writer,
            utilization_per_step_rate=utilization_per_step_rate(
                task.model,
                partitioner.train_inputs_shape_dtype,
                list(partitioner.global_mesh.devices.flat),
            ),
        )
        self._profile = ProfileOnce(task.train, job_log_dir, "train")
        self._init_step = init_step
        self._batches = TrainBatches(train_input, self._place)
        self._watch = AnomalyWatch(task)
        self._is_set_up = True

    @property
    def train_input(self) -> base_input.BaseInput:
        """The input. Batches are fetched from it ahead of their use."""
        return self._train_input

    @property
    def train_unpadded_global_batch_size(self) -> int:
        """Examples in a batch of all processes."""
        return self._batch_size

    @property
    def summary_writer(self) -> Any:
        """What writes the summaries of training."""
        return self._report.train

    @property
    def text_writer(self) -> Any:
        """The event file of training, for texts about the run."""
        return self._report.writer

    @property
    def input_state(self) -> bytes | None:
        """Position of the input after the batches trained on; None if the input cannot tell."""
        return self._batches.state

    @property
    def input_saves_itself(self) -> bool:
        """Whether the input writes its position by its own `save`."""
        return self._batches.saves_itself

    @property
    def input_error(self) -> BaseException | None:
        """What the input raised in place of the next batch, if it did."""
        return self._batches.error

    def should_run(self, state: TrainState, step: int) -> bool:
        del state
        return step < self._task.train.num_train_steps

    def update_state(self, state: TrainState, step: int) -> TrainState:
        """Hook: changes the state before the step; the identity by default."""
        del step
        return state

    def register_first_result_callback_fn(
        self, train_first_result_callback_fn: Callable[[Any], None]
    ) -> None:
        """Sets what is called with the loss of the first step, once it is known."""
        self._first_result_callback = train_first_result_callback_fn

    def first_result_callback_fn(self, metric: Any) -> None:
        """Calls what was registered, once."""
        callback, self._first_result_callback = self._first_result_callback, None
        if callback is not None:
            callback(metric)

    def run(self, state: TrainState, step: int) -> TrainProgramOutput:
        """Trains on the next batch.

        Raises:
          StopIteration: at the end of the data; the state is still valid.
          ValueError: if the first batch does not fit the input specs.
          UnusableStepsError: after too many steps in a row that were skipped.
        """
        self._profile.before_step(step - self._init_step)
        started = time.monotonic()
        batch = next(self._batches)
        waited = time.monotonic() - started
        if not self._checked_specs:
            if self._task.train.enforce_input_specs:
                self._partitioner.check_input_spec(batch)
            self._checked_specs = True
        new_step, state, out = self.train_step(
            step, state, self._train_key, batch, self._static_args
        )
        self._state = state
        self._pending.append(_Sent(new_step, out, batch))
        steps_per_sec = self._report.after_step(
            new_step, out, tokens=tokens_of(batch), input_wait_secs=waited
        )
        self._wait_until_pending(max(0, self._task.train.max_inflight_steps))
        return TrainProgramOutput(
            state=state,
            loss=out.loss,
            weighted_scalars=out.weighted_scalars,
            new_train_step=new_step,
            steps_per_sec=steps_per_sec,
            eval_train_metrics=self._maybe_eval_train(state, step, new_step),
        )

    @abc.abstractmethod
    def train_step(
        self,
        step: int,
        state: TrainState,
        prng_key: jax.Array,
        inputs: Any,
        static_args: BaseStepFnStaticArgs,
    ) -> tuple[int, TrainState, StepFnOutput]:
        """Trains on a batch; returns the new step, the new state and the results."""

    @abc.abstractmethod
    def eval_train_step(
        self, state: TrainState, prng_key: jax.Array, inputs: Any, static_args: BaseStepFnStaticArgs
    ) -> tuple[None, StepFnOutput]:
        """Evaluates a training batch."""

    @abc.abstractmethod
    def train_input_partition_spec(self, inputs: Any) -> Any:
        """Shardings of a batch."""

    def flush(self) -> None:
        """Waits for the steps under way, and until their summaries are in the event files.

        It comes before a checkpoint: what a resumed run does not do again must be on disk.
        """
        self._wait_until_pending(0)
        self._report.flush()

    def shutdown(self) -> None:
        if not self._is_set_up:
            return
        self._is_set_up = False
        try:
            self._batches.close()
            self._wait_until_pending(0, watched=False)
        finally:
            self._profile.close()
            self._report.close()

    def _place(self, padded_inputs: Any) -> Any:
        numeric = numeric_only(padded_inputs)
        return self._partitioner.preprocess_inputs(
            self._train_input, numeric, self.train_input_partition_spec(numeric)
        )

    def _wait_until_pending(self, count: int, *, watched: bool = True) -> None:
        """Waits for the oldest steps until no more than `count` are not known to be done."""
        while len(self._pending) > count:
            step, out, batch = self._pending.popleft()
            jax.block_until_ready(out.loss)
            self.first_result_callback_fn(out.loss)
            self._report.show(step, out)
            if watched:
                self._watch.check(step, out, functools.partial(self._diagnose, batch))

    def _diagnose(self, batch: Any, step: int) -> str:
        assert self._state is not None
        # Skipped steps left the weights as they were; only the number of the step is another.
        state = self._state.replace(step=jnp.asarray(step - 1, self._state.step.dtype))
        return diagnose(
            self._task, self._partitioner, state, self._train_key, batch, self._static_args
        )

    def _maybe_eval_train(
        self, state: TrainState, step: int, new_step: int
    ) -> Mapping[str, Any] | None:
        """Metrics, still on the device, of the batch that will be trained on next."""
        train = self._task.train
        interval = train.eval_interval_steps
        if train.eval_skip_train or not interval or step // interval == new_step // interval:
            return None
        batch = self._batches.peek()
        if batch is None:
            return None
        eval_state = get_eval_train_state(self._task, state, train.eval_use_ema_states)
        _, out = self.eval_train_step(eval_state, self._eval_key, batch, self._static_args)
        self._report.after_eval_train(new_step, out)
        return {key: value for key, (value, _) in out.weighted_scalars.items()}


class SingleTaskTrainProgram(BaseTrainProgram):
    """One update a run, by the training step of `paxml.trainer_lib`."""

    def __init__(self) -> None:
        super().__init__()
        self._train_step: PartitionedStepFn | None = None
        self._eval_step: PartitionedStepFn | None = None

    def train_step(
        self,
        step: int,
        state: TrainState,
        prng_key: jax.Array,
        inputs: Any,
        static_args: BaseStepFnStaticArgs,
    ) -> tuple[int, TrainState, StepFnOutput]:
        if self._train_step is None:
            self._train_step, _ = self._partitioner.partition(
                get_step_fn(RunningMode.TRAIN), trees.get_shape_dtype(inputs), is_eval=False
            )
        new_state, out = self._train_step(state, prng_key, inputs, static_args)
        assert new_state is not None
        return step + 1, new_state, out

    def eval_train_step(
        self, state: TrainState, prng_key: jax.Array, inputs: Any, static_args: BaseStepFnStaticArgs
    ) -> tuple[None, StepFnOutput]:
        if self._eval_step is None:
            self._eval_step, _ = self._partitioner.partition(
                get_step_fn(RunningMode.EVAL), trees.get_shape_dtype(inputs), is_eval=True
            )
        return None, self._eval_step(state, prng_key, inputs, static_args)[1]

    def train_input_partition_spec(self, inputs: Any) -> Any:
        return get_input_partition_specs(self._partitioner.global_mesh.axis_names, inputs)

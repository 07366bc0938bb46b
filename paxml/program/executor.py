"""The loop of a training run."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
from absl import logging
from etils import epath

from paxml.checkpoint.manager import Checkpointer
from paxml.partitioning.base import Partitioner
from paxml.program import early_stop
from paxml.program.agree import all_processes_at
from paxml.program.base import get_eval_train_state
from paxml.program.base_executor import BaseExecutor
from paxml.program.begin import Beginning, begin, check_input_can_be_saved
from paxml.program.evaluate import BaseEvalProgram
from paxml.program.rounds import run_decode_programs, run_eval_programs
from paxml.program.status import TrainingStatus
from paxml.program.stop import InputExhaustedError, StopRequest, TrainingStopped
from paxml.program.train import BaseTrainProgram
from paxml.summary import texts
from paxml.summary.tables import num_parameters
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer import files
from paxml.trainer.init import get_train_input_specs_for_model_init
from paxml.trainer.inputs import check_unique_names
from paxml.trainer.types import RunningMode
from praxis import base_input, pax_fiddle, py_utils


class DefaultExecutor(BaseExecutor):
    """Trains step by step, and saves, evaluates and decodes at their intervals."""

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
        self._task, self._train = jax_task, jax_task.train
        self._early_stopping_fn = early_stop.choose(jax_task, early_stopping_fn)
        self._job_log_dir = epath.Path(job_log_dir)
        self._checkpointer = checkpointer
        self._exit_on_demand = exit_after_ondemand_checkpoint
        self._train_program = train_program
        self._eval_programs, self._decode_programs = list(eval_programs), list(decode_programs)

        with contextlib.ExitStack() as opened:
            if checkpointer is not None:
                opened.callback(checkpointer.close)
            root_key = jax.random.PRNGKey(self._train.random_seed)
            train_input = train_input_p.Instantiate()
            specs = get_train_input_specs_for_model_init(jax_task, input_specs_provider)
            partitioner.setup(jax_task, root_key, specs)
            metadata = partitioner.get_train_state_metadata()
            files.write_post_init_model_hparams_file(jax_task.model, metadata, job_log_dir)
            start = begin(
                jax_task,
                checkpointer=checkpointer,
                partitioner=partitioner,
                root_key=root_key,
                train_input=train_input,
            )
            self._state, self._step = start.state, start.step
            self._unpadded_shapes = metadata.unpadded_global_shapes
            self._num_params = num_parameters(metadata.var_weight_hparams)
            self._open_programs(opened, partitioner, train_input, start, enable_summary_writer)
            if start.provenance is not None:
                files.write_train_provenance_file(start.provenance, job_log_dir)
            files.write_parameter_table_file(metadata.var_weight_hparams, job_log_dir)
            if self._step == 0:
                self._write_texts(metadata.var_weight_hparams, start.provenance)
            self._opened = opened.pop_all()

    def start(self) -> None:
        """Trains to the end.

        Raises:
          TrainingStopped: after a signal, when the checkpoint is complete.
          InputExhaustedError: if the training data ends early; the last state is saved.
        """
        status = TrainingStatus(self._job_log_dir, self._train.num_train_steps)
        with status, self._opened, StopRequest() as stop, _resting_gc():
            self._loop(stop)
        py_utils.sync_global_devices("finished")

    def _open_programs(
        self,
        opened: contextlib.ExitStack,
        partitioner: Partitioner,
        train_input: base_input.BaseInput,
        start: Beginning,
        enable_summary_writer: bool,
    ) -> None:
        for key, programs in (
            (start.eval_key, self._eval_programs),
            (start.decode_key, self._decode_programs),
        ):
            for program in programs:
                opened.callback(program.shutdown)
                program.setup(
                    self._task,
                    partitioner,
                    self._job_log_dir,
                    key,
                    enable_summary_writer=enable_summary_writer,
                )
        check_unique_names([program.eval_input for program in self._eval_programs])
        check_unique_names([program.decode_input for program in self._decode_programs])
        opened.callback(self._train_program.shutdown)
        self._train_program.setup(
            self._task,
            train_input,
            partitioner,
            self._job_log_dir,
            start.train_key,
            start.eval_key,
            self._step,
            enable_summary_writer=enable_summary_writer,
        )
        check_input_can_be_saved(self._task, self._train_program)

    def _loop(self, stop: StopRequest) -> None:
        program = self._train_program
        while True:
            self._save()
            if stop.reached(self._step):
                self._stop(stop)
            if not program.should_run(self._state, self._step):
                break
            self._state = program.update_state(self._state, self._step)
            try:
                output = program.run(self._state, self._step)
            except StopIteration as end:
                self._end_of_data(end)
            except Exception as error:
                if error is program.input_error:
                    self._note_input_error(error)
                raise
            self._state, self._step = output.state, output.new_train_step
            mode, metrics = self._evaluate(output)
            self._collect_garbage(mode)
            if self._should_stop_early(mode, metrics, output):
                logging.info("Early stopping at step %d.", self._step)
                break
        self._save(force=True)

    def _evaluate(self, output: Any) -> tuple[RunningMode, dict[str, float]]:
        """Runs the evaluation and decoding that is due; returns what ran, and its metrics."""
        # Of whatever training program, these programs get a state they cannot change.
        metrics: dict[str, float] = {}
        if evals := self._due(self._eval_programs):
            state = self._eval_state(self._train.eval_use_ema_states)
            metrics |= run_eval_programs(eval_programs=evals, train_state=state, step=self._step)
        if decodes := self._due(self._decode_programs):
            state = self._eval_state(self._train.decode_use_ema_states)
            metrics |= run_decode_programs(
                decode_programs=decodes, train_state=state, step=self._step
            )
        mode = RunningMode.detect(has_train=True, has_eval=bool(evals), has_decode=bool(decodes))
        return mode, metrics

    def _due(self, programs: Sequence[Any]) -> list[Any]:
        is_last = self._step >= self._train.num_train_steps
        return [one for one in programs if is_last or one.should_run(self._state, self._step)]

    def _eval_state(self, use_ema: bool) -> TrainState:
        return get_eval_train_state(self._task, self._state, use_ema)

    def _should_stop_early(self, mode: RunningMode, metrics: dict[str, float], output: Any) -> bool:
        if self._early_stopping_fn is None:
            return False
        values = {"train_steps_per_sec": float(output.steps_per_sec), **metrics}
        values |= early_stop.prefixed("eval_train/metrics", output.eval_train_metrics)
        is_last = self._step >= self._train.num_train_steps
        # Otherwise left on the device: reading them would wait for the step.
        if mode.has_eval or mode.has_decode or is_last or early_stop.always_reads_train_metrics():
            scalars = output.weighted_scalars or {}
            train = {key: value for key, (value, _) in scalars.items()}
            values |= early_stop.prefixed("train", train)
        values["num_params"] = float(self._num_params)
        return self._early_stopping_fn(
            values,
            mode,
            self._step,
            early_stop.is_last_checkpoint(self._train, self._step, mode),
            self._job_log_dir / "checkpoints",
        )

    def _save(self, *, force: bool = False) -> None:
        """Saves the state if that is due, or if nothing newer than it is saved."""
        checkpointer, program = self._checkpointer, self._train_program
        if checkpointer is None or not (force or checkpointer.should_save(self._step)):
            return
        program.flush()
        wants_own_save = program.input_saves_itself and self._train.enable_input_checkpointing
        saved = checkpointer.save(
            self._step,
            self._state,
            train_input=program.train_input if wants_own_save else None,
            input_state=program.input_state,
            unpadded_shapes=self._unpadded_shapes,
            force=force,
        )
        if saved:
            logging.info("Saving step %d to %s", self._step, checkpointer.directory)

    def _save_last(self) -> str | None:
        """Saves the state and waits for it; returns where, or None if nothing is saved here."""
        if not self._saves:
            return None
        assert self._checkpointer is not None
        self._save(force=True)
        self._checkpointer.wait()
        return str(self._checkpointer.directory)

    def _save_without_input(self) -> tuple[str | None, str]:
        """Saves if no process has a next batch; returns where, if it did, and why not."""
        if not self._saves:
            return None, "since saving is off"
        if not all_processes_at(f"no_batch_after_{self._step}"):
            return None, "since other processes have a next batch and go on"
        return self._save_last(), ""

    @property
    def _saves(self) -> bool:
        return self._checkpointer is not None and not self._checkpointer.read_only

    def _stop(self, stop: StopRequest) -> NoReturn:
        saved_in = self._save_last()
        where = f"with a checkpoint in {saved_in}" if saved_in else "without a checkpoint"
        logging.warning("Stopped at step %d %s.", self._step, where)
        raise TrainingStopped(stop.exit_code(self._exit_on_demand), self._step)

    def _end_of_data(self, end: StopIteration) -> NoReturn:
        source = self._train_program.train_input
        saved_in, why_not = self._save_without_input()
        saved = "is saved" if saved_in else f"is not saved, {why_not}"
        raise InputExhaustedError(
            f"Training input {source.name!r} ended after step {self._step}, before "
            f"num_train_steps = {int(self._train.num_train_steps)}. The state of step {self._step} "
            f"{saved}. Repeat the data, or lower num_train_steps."
        ) from end

    def _note_input_error(self, error: Exception) -> None:
        """Saves the state, which is whole, and says so in the error."""
        source = self._train_program.train_input
        error.add_note(
            f"Raised by training input {source.name!r} ({type(source).__name__}) in place of the "
            f"batch of step {self._step + 1}."
        )
        saved_in, why_not = self._save_without_input()
        error.add_note(
            f"The state of step {self._step} is saved in {saved_in}: the next start asks for that "
            "batch again."
            if saved_in
            else f"The state of step {self._step} is not saved, {why_not}."
        )

    def _collect_garbage(self, mode: RunningMode) -> None:
        interval = self._train.gc_interval_steps
        if interval > 0 and (self._step % interval == 0 or mode.has_eval):
            gc.collect()

    def _write_texts(self, var_weight_hparams: Any, provenance: Any) -> None:
        writer = self._train_program.text_writer
        texts.write_model_structure(writer, self._state)
        texts.write_parameter_table(writer, var_weight_hparams)
        texts.write_total_num_params(writer, self._num_params)
        texts.write_global_batch_size(writer, self._train_program.train_unpadded_global_batch_size)
        if provenance is not None:
            texts.write_model_provenance(writer, provenance)


@contextlib.contextmanager
def _resting_gc() -> Iterator[None]:
    """Keeps Python's collector off the objects that live all through training."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

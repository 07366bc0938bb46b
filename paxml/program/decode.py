"""Decoding programs: what a model makes of the examples of one input."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from etils import epath

from paxml.output.formats import EvaluationMode
from paxml.output.write import get_filename, write_key_value_pairs
from paxml.partitioning.base import PartitionedStepFn, Partitioner
from paxml.partitioning.create import get_step_fn
from paxml.program.base import Program, ProgramOutput, get_summary_base_dir
from paxml.program.batches import global_batch_size
from paxml.program.decode_results import DecodeResults
from paxml.program.eval_batches import eval_batches
from paxml.program.profile_once import ProfileOnce
from paxml.summary.writer import get_summary_writer
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer.inputs import get_input_partition_specs
from paxml.trainer.types import BaseStepFnStaticArgs, RunningMode, StepFnOutput
from praxis import base_input, pax_fiddle
from praxis.utils import trees


@dataclasses.dataclass
class DecodeProgramOutput(ProgramOutput):
    """Result of one run of a decoding program.

    Attributes:
      decode_metrics: Metrics of the model's `decode`, reduced over the batches, by name.
      processed_decode_metrics: Those of its `process_decode_out`.
      seqio_metrics: Metrics that the input computed from the outputs; none yet.
      num_decode_steps: Number of batches.
    """

    decode_metrics: Mapping[str, float] | None = None
    processed_decode_metrics: Mapping[str, float] | None = None
    seqio_metrics: Mapping[str, float] | None = None
    num_decode_steps: int = 0


class SingleTaskDecodeProgram(Program):
    """Decodes the batches of one input by the model's `decode` and `process_decode_out`.

    It writes metrics and summaries to `summaries/decode_test_<input>`, and one record for each
    example to `decoder_out/<input>`.
    """

    def __init__(self, input_p: pax_fiddle.Config[base_input.BaseInput]) -> None:
        """Takes the config of the input; it is opened in `setup`."""
        self._input_p = input_p
        self._input: base_input.BaseInput | None = None
        self._opened = contextlib.ExitStack()
        self._step: PartitionedStepFn | None = None

    def setup(
        self,
        task: SingleTask,
        partitioner: Partitioner,
        job_log_dir: epath.PathLike,
        decode_prng_seed: jax.Array,
        output_pickle: bool = True,
        enable_summary_writer: bool = True,
    ) -> None:
        """Opens the input and the event file.

        Args:
          task: The task.
          partitioner: A partitioner that is set up.
          job_log_dir: Where event files and outputs go.
          decode_prng_seed: Decoding key of the run. All batches of a step use the same, unless
            `decode.prng_key_fold_with_batch_index` is set.
          output_pickle: Whether a pickle is written beside the JSON lines.
          enable_summary_writer: Whether event files are written.
        """
        self._task = task
        self._partitioner = partitioner
        self._decode_key = partitioner.preprocess_prng_key(decode_prng_seed)
        self._output_pickle = output_pickle
        self._input = partitioner.preprocess_input_config(self._input_p).Instantiate()
        self._static_args = BaseStepFnStaticArgs(
            unpadded_global_batch_size=global_batch_size(self.decode_input)
        )
        name = self.decode_input.name
        self._output_dir = epath.Path(job_log_dir) / EvaluationMode.DECODE.output_dir_name / name
        self._writer = get_summary_writer(
            get_summary_base_dir(job_log_dir) / f"decode_test_{name}", enable_summary_writer
        )
        self._opened.callback(self._writer.close)
        self._profile = ProfileOnce(task.decode, job_log_dir, "decode")
        self._opened.callback(self._profile.close)

    @property
    def decode_input(self) -> base_input.BaseInput:
        """The input."""
        if self._input is None:
            raise ValueError(f"{type(self).__name__} is used before setup().")
        return self._input

    # The public name of the argument differs from that of the other programs.
    def should_run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state: TrainState, train_step: int
    ) -> bool:
        del state
        train = self._task.train
        interval = train.decode_interval_steps
        is_due = bool(interval) and train_step % interval == 0
        return is_due and train_step >= train.decode_start_after_n_steps

    def run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state: TrainState, train_step: int
    ) -> DecodeProgramOutput:
        """Decodes as many batches as the input says.

        Raises:
          ValueError: if the input has fewer batches than its `eval_loop_num_batches`.
          TypeError: if a result cannot be written as JSON.
        """
        started = time.monotonic()
        source = self.decode_input
        results = DecodeResults(self._task, source)
        waiting = None
        batches = eval_batches(
            source, self._partitioner, self.decode_input_partition_spec, what="Decoding"
        )
        for number, (batch, texts) in enumerate(batches, 1):
            self._profile.before_step(number)
            key = self._decode_key
            if self._task.decode.prng_key_fold_with_batch_index:
                key = jax.random.fold_in(key, number)
            _, out = self.decode_step(state, key, batch, self._static_args)
            # Processed one batch late: the devices have the next step by then.
            if waiting is not None:
                results.add(*waiting)
            waiting = (out, texts)
        if waiting is None:
            logging.error(
                "Decoding input %s gave no batch at step %d. Check that it has data and that a "
                "finite input sets reset_for_eval = True.",
                *(source.name, train_step),
            )
            return DecodeProgramOutput(state=state, decode_metrics={}, processed_decode_metrics={})
        results.add(*waiting)
        decode_metrics, processed_metrics = results.summarize(self._writer, train_step)
        self._writer.flush()
        if results.pairs:
            name = get_filename(train_step, EvaluationMode.DECODE.filename_prefix)
            write_key_value_pairs(
                self._output_dir / name, results.pairs, write_pickle=self._output_pickle
            )
        logging.info(
            "Decoded %s at step %d: %d batches in %.1f s",
            *(source.name, train_step, results.num_batches, time.monotonic() - started),
        )
        return DecodeProgramOutput(
            state=state,
            decode_metrics=decode_metrics,
            processed_decode_metrics=processed_metrics,
            num_decode_steps=results.num_batches,
        )

    def decode_step(
        self, state: TrainState, prng_key: jax.Array, inputs: Any, static_args: BaseStepFnStaticArgs
    ) -> tuple[None, StepFnOutput]:
        """Decodes a batch."""
        if self._step is None:
            self._step, _ = self._partitioner.partition(
                get_step_fn(RunningMode.DECODE), trees.get_shape_dtype(inputs), is_eval=True
            )
        return None, self._step(state, prng_key, inputs, static_args)[1]

    def decode_input_partition_spec(self, inputs: Any) -> Any:
        """Shardings of a batch."""
        return get_input_partition_specs(self._partitioner.global_mesh.axis_names, inputs)

    def shutdown(self) -> None:
        self._input = None
        self._opened.close()

"""What a training program tells about itself: summaries, speed and the progress line."""

import contextlib

import jax
from etils import epath

from paxml.program.throughput import SpeedMeter
from paxml.summary.handler import SummaryHandler
from paxml.summary.progress import ProgressLine
from paxml.summary.writer import get_summary_writer
from paxml.task.settings import Train
from paxml.trainer.types import StepFnOutput


class TrainReport:
    """Takes results that may still be computed; never waits for them.

    Attributes:
      writer: The event file of training.
      train: Writes summaries of training.
      eval_train: Writes summaries of training batches in evaluation mode; None if there are none.
    """

    def __init__(
        self,
        train: Train,
        summary_dir: epath.Path,
        *,
        init_step: int,
        enable_summary_writer: bool,
        utilization_per_step_rate: float | None = None,
    ) -> None:
        self.writer = get_summary_writer(summary_dir / "train", enable_summary_writer)
        self._writers = [self.writer]
        self.train = SummaryHandler(
            self.writer,
            write_interval_steps=train.summary_interval_steps,
            accumulate_interval_steps=train.summary_accumulate_interval_steps,
            log_interval_steps=train.log_train_output_interval_steps
            or train.summary_interval_steps,
            is_async=train.async_summary_writing,
            name="train",
        )
        self.eval_train = None
        if train.eval_interval_steps and not train.eval_skip_train:
            self._writers.append(
                get_summary_writer(summary_dir / "eval_train", enable_summary_writer)
            )
            self.eval_train = SummaryHandler(
                self._writers[1],
                write_interval_steps=1,
                is_async=train.async_summary_writing,
                name="eval_train",
            )
        self._progress = (
            ProgressLine(int(train.num_train_steps), metrics=train.progress_metrics)
            if jax.process_index() == 0
            else None
        )
        self._meter = SpeedMeter(
            train.compute_steps_per_sec_interval_steps,
            init_step,
            utilization_per_step_rate=utilization_per_step_rate,
        )

    def after_step(
        self, step: int, out: StepFnOutput, *, tokens: int, input_wait_secs: float = 0.0
    ) -> float:
        """Takes the results of a step.

        Args:
          step: Number of updates applied.
          out: Results of the last of them.
          tokens: Tokens in its batch.
          input_wait_secs: Seconds that it waited for the batch.

        Returns:
          Steps per second if this step was one to measure at, else 0.
        """
        speed = self._meter.count(step, tokens=tokens, input_wait_secs=input_wait_secs)
        self.train.process(
            step,
            out.loss,
            out.weighted_scalars,
            out.summary_tensors,
            steps_per_sec=speed and speed.steps_per_sec,
            clu_metrics=out.clu_metrics,
            throughput=speed and speed.values(),
        )
        return speed.steps_per_sec if speed else 0.0

    def after_eval_train(self, step: int, out: StepFnOutput) -> None:
        """Takes the results on a training batch in evaluation mode."""
        if self.eval_train is not None:
            self.eval_train.process(
                step,
                out.loss,
                out.weighted_scalars,
                out.summary_tensors,
                clu_metrics=out.clu_metrics,
            )

    def show(self, step: int, out: StepFnOutput) -> None:
        """Moves the progress line on; the results must be computed."""
        if self._progress is None:
            return
        speed = self._meter.latest
        self._progress.update(
            step,
            loss=out.loss,
            metrics=out.weighted_scalars,
            steps_per_sec=speed and speed.steps_per_sec,
            tokens_per_sec=(speed.tokens_per_sec or None) if speed else None,
        )

    def flush(self) -> None:
        """Returns when everything so far is in the event files.

        Raises:
          Exception: what went wrong while writing.
        """
        for handler in (self.train, self.eval_train):
            if handler is not None:
                handler.flush()

    def close(self) -> None:
        """Writes what is left; each part is closed whatever happens to the others.

        Raises:
          Exception: what went wrong while writing.
        """
        with contextlib.ExitStack() as closing:  # runs the last callback first
            for writer in self._writers:
                closing.callback(writer.close)
            for handler in (self.eval_train, self.train):
                if handler is not None:
                    closing.callback(handler.close)
            if self._progress is not None:
                closing.callback(self._progress.close)

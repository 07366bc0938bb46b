"""What a training program tells about itself: summaries, speed and the progress line."""

import contextlib
import time

import jax
from etils import epath

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
        self._interval = train.compute_steps_per_sec_interval_steps
        self._measured_at = (time.monotonic(), init_step)
        self._steps_per_sec = 0.0
        self._tokens = 0

    def after_step(self, step: int, out: StepFnOutput, *, tokens: int) -> float:
        """Takes the results of a step.

        Args:
          step: Number of updates applied.
          out: Results of the last of them.
          tokens: Tokens in its batch.

        Returns:
          Steps per second if this step was one to measure at, else 0.
        """
        self._tokens = tokens
        measured = self._measure(step)
        self.train.process(
            step,
            out.loss,
            out.weighted_scalars,
            out.summary_tensors,
            steps_per_sec=measured or None,
            clu_metrics=out.clu_metrics,
        )
        return measured

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
        speed = self._steps_per_sec
        self._progress.update(
            step,
            loss=out.loss,
            metrics=out.weighted_scalars,
            steps_per_sec=speed or None,
            tokens_per_sec=speed * self._tokens or None,
        )

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

    def _measure(self, step: int) -> float:
        if not self._interval or step % self._interval:
            return 0.0
        now = time.monotonic()
        then, first = self._measured_at
        self._measured_at = (now, step)
        self._steps_per_sec = (step - first) / max(now - then, 1e-9)
        return self._steps_per_sec

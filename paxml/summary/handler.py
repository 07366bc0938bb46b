"""Turns the outputs of train steps into event files, beside the training."""

import dataclasses
import os
import queue
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from paxml.summary.entry import METRICS_PREFIX, mean_of, weighted_mean, write_summary_entry
from paxml.summary.tensors import flatten_flax_summaries
from paxml.summary.writer import get_summary_writer
from paxml.summary.writers.base import SummaryWriter

# Steps that may wait to be written. The caller of a full queue waits, so that memory is bounded.
_QUEUE_SIZE = 64


@dataclasses.dataclass
class _Accumulated:
    """What was seen since the last entry."""

    losses: list[Any] = dataclasses.field(default_factory=list)
    speeds: list[float] = dataclasses.field(default_factory=list)
    throughput: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    weighted_scalars: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    summaries: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    clu_metrics: Any = None


@dataclasses.dataclass(frozen=True)
class _Speed:
    """How fast training was up to a step, as far as it was measured there."""

    steps_per_sec: float | int | None
    throughput: Mapping[str, float]


class _Worker:
    """One thread that runs calls in order and hands an error to the next caller."""

    def __init__(self, name: str) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_QUEUE_SIZE)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._error is not None:
                continue  # The queue must not fill up behind an error.
            try:
                call()
            except BaseException as error:
                self._error = error

    def submit(self, call: Callable[[], None]) -> None:
        self.raise_error()
        self._calls.put(call)

    def stop(self) -> None:
        """Waits for all calls."""
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()

    def wait(self) -> None:
        """Waits for the calls so far."""
        done = threading.Event()
        self._calls.put(done.set)
        # The thread drops calls after an error, this one too.
        while not done.wait(0.05) and self._error is None:
            pass
        self.raise_error()

    def raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


class SummaryHandler:
    """Writes train summaries at an interval.

    `process` takes arrays that may still be computed. With `is_async` a thread waits for them and
    writes, and the caller goes on; an error in the thread is raised by the next `process`, or by
    `close`.
    """

    def __init__(
        self,
        summary_writer: SummaryWriter | str | os.PathLike[str],
        write_interval_steps: int,
        accumulate_interval_steps: int | None = None,
        log_interval_steps: int | None = None,
        is_async: bool = False,
        name: str = "",
        metrics_prefix: str = METRICS_PREFIX,
    ) -> None:
        """Opens the event file if a directory is given.

        Args:
          summary_writer: A writer, or the directory to open one in.
          write_interval_steps: Entries are written at multiples of it.
          accumulate_interval_steps: If given, an entry holds means over the steps at multiples of
            this since the last entry. Must divide the write interval.
          log_interval_steps: Loss and metrics are logged at multiples of it; None never logs.
          is_async: Whether a thread does the work.
          name: For log lines and messages.
          metrics_prefix: In front of the names of metrics.

        Raises:
          ValueError: if an interval is below 1, or the accumulation does not divide the writing.
        """
        _check_intervals(name, write_interval_steps, accumulate_interval_steps)
        self._owns_writer = not isinstance(summary_writer, SummaryWriter)
        self._writer = (
            summary_writer
            if isinstance(summary_writer, SummaryWriter)
            else get_summary_writer(summary_writer)
        )
        self._write_interval = write_interval_steps
        self._accumulate_interval = accumulate_interval_steps
        self._log_interval = log_interval_steps
        self._name = name
        self._metrics_prefix = metrics_prefix
        self._accumulated = _Accumulated()
        self._latest_step = -1
        self._worker = _Worker(f"summaries-{name}") if is_async else None
        self._closed = False

    @property
    def accumulate_over_steps(self) -> bool:
        """Whether entries hold means over several steps."""
        return self._accumulate_interval is not None

    def should_write(self, step: int) -> bool:
        """Whether an entry is due at this step."""
        return step % self._write_interval == 0

    def should_log(self, step: int) -> bool:
        """Whether a log line is due at this step."""
        return bool(self._log_interval) and step % (self._log_interval or 1) == 0

    def should_accumulate(self, step: int) -> bool:
        """Whether this step counts for the next entry."""
        return bool(self._accumulate_interval) and step % (self._accumulate_interval or 1) == 0

    def process(
        self,
        step: int,
        loss: Any,
        weighted_scalars: Mapping[str, tuple[Any, Any]] | None,
        summary_tensors: Mapping[str, Any] | None,
        per_example_out: Any = None,
        steps_per_sec: float | int | None = None,
        clu_metrics: Mapping[str, Any] | None = None,
        force: bool = False,
        throughput: Mapping[str, float] | None = None,
    ) -> bool:
        """Takes the outputs of a step; writes, logs or accumulates them if that is due.

        Args:
          step: Step after the update.
          loss: Scalar array.
          weighted_scalars: Pairs (value, weight) by name.
          summary_tensors: Summaries of the model, nested by layer; keys end in their type.
          per_example_out: Not written.
          steps_per_sec: Steps per second, where it was measured.
          clu_metrics: CLU metrics by name.
          force: Writes although no entry is due.
          throughput: Further measures of speed by name, where they were taken.

        Returns:
          Whether an entry is written.

        Raises:
          RuntimeError: after `close`.
          Exception: what went wrong in the thread since the last call.
        """
        del per_example_out
        if self._closed:
            raise RuntimeError(f"Summaries {self._name!r} are closed; step {step} came after.")
        writes = force or self.should_write(step)
        if not (writes or self.should_log(step) or self.should_accumulate(step)):
            return False
        if step < self._latest_step:
            warnings.warn(
                f"Summaries {self._name!r}: step {step} after step {self._latest_step}.",
                stacklevel=2,
            )
        self._latest_step = step
        values = (loss, dict(weighted_scalars or {}), dict(summary_tensors or {}))
        for leaf in jax.tree.leaves(values):
            if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
                leaf.copy_to_host_async()

        def work() -> None:
            self._process(
                step,
                jax.device_get(values),
                _Speed(steps_per_sec, dict(throughput or {})),
                clu_metrics,
                writes,
            )

        if self._worker is None:
            work()
        else:
            self._worker.submit(work)
        return writes

    def text(self, tag: str, text: str, step: int) -> None:
        """Writes a text."""
        if self._worker is None:
            self._writer.add_text(tag, text, step)
        else:
            self._worker.submit(lambda: self._writer.add_text(tag, text, step))

    def flush(self) -> None:
        """Returns when everything so far is written.

        Raises:
          Exception: what went wrong in the thread since the last call.
        """
        if self._worker is not None and not self._closed:
            self._worker.wait()
        self._writer.flush()

    def close(self, wait: bool = True) -> None:
        """Writes what is waiting and closes the file if this opened it.

        Args:
          wait: Kept for old callers; it always waits, so that nothing is lost.

        Raises:
          Exception: what went wrong in the thread since the last call.
        """
        del wait
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._worker.stop()
        if self._owns_writer:
            self._writer.close()
        else:
            self._writer.flush()
        if self._worker is not None:
            self._worker.raise_error()

    def _process(
        self, step: int, values: Any, speed: "_Speed", clu_metrics: Any, writes: bool
    ) -> None:
        loss, weighted_scalars, summary_tensors = values
        if self.should_log(step):
            self._log(step, loss, weighted_scalars, speed.steps_per_sec)
        if not self.accumulate_over_steps:
            self._accumulated = _Accumulated()
        if self.should_accumulate(step) or not self.accumulate_over_steps:
            self._accumulate(loss, weighted_scalars, summary_tensors, speed, clu_metrics)
        if writes:
            seen, self._accumulated = self._accumulated, _Accumulated()
            write_summary_entry(
                self._writer,
                step,
                seen.losses,
                seen.weighted_scalars,
                seen.clu_metrics,
                seen.summaries,
                mean_of(seen.speeds) if seen.speeds else None,
                self._metrics_prefix,
                seen.throughput,
            )

    def _accumulate(
        self, loss: Any, weighted_scalars: Any, summaries: Any, speed: "_Speed", clu: Any
    ) -> None:
        seen = self._accumulated
        seen.losses.append(loss)
        if speed.steps_per_sec is not None:
            seen.speeds.append(speed.steps_per_sec)
        for name, value in speed.throughput.items():
            seen.throughput.setdefault(name, []).append(value)
        for key, pair in weighted_scalars.items():
            seen.weighted_scalars.setdefault(key, []).append(pair)
        for key, value in flatten_flax_summaries(summaries).items():
            seen.summaries.setdefault(key, []).append(value)
        seen.clu_metrics = clu

    def _log(self, step: int, loss: Any, weighted_scalars: Any, speed: float | int | None) -> None:
        parts = [f"step {step}", f"loss {mean_of(loss):.6g}"]
        parts += [
            f"{key} {weighted_mean([pair])[0]:.6g}"
            for key, pair in weighted_scalars.items()
            if key != "loss"
        ]
        if speed is not None:
            parts.append(f"{speed:.3g} steps/s")
        logging.info("%s %s", self._name, ", ".join(parts))


def _check_intervals(name: str, write: int, accumulate: int | None) -> None:
    for field, value in (("write", write), ("accumulate", accumulate)):
        if value is not None and value < 1:
            raise ValueError(
                f"Summaries {name!r}: {field}_interval_steps is {value}, expected at least 1."
            )
    if accumulate is not None and write % accumulate:
        raise ValueError(
            f"Summaries {name!r}: write_interval_steps {write} is not a multiple of "
            f"accumulate_interval_steps {accumulate}, so an entry could hold nothing."
        )

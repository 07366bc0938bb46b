"""What a decoding collects from its batches, and what it writes at the end."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paxml.metric.values import compute_metric_values, merge_clu_metrics
from paxml.program.batches import with_texts
from paxml.summary.current import write_clu_metric_summaries, writing_to
from paxml.summary.entry import write_summaries
from paxml.summary.tensors import flatten_flax_summaries, should_cap_summary
from paxml.summary.writers.base import SummaryWriter
from paxml.task.single_task import SingleTask
from paxml.trainer.types import StepFnOutput
from praxis import base_input

DECODE_METRICS = "decode_metrics"
PROCESSED_METRICS = "process_decode_metrics"


class DecodeResults:
    """Results of the batches of one run.

    Attributes:
      num_batches: Batches so far.
      pairs: (key, value) of each example, from the model's `process_decode_out`; in the first
        process only.
    """

    def __init__(self, task: SingleTask, source: base_input.BaseInput) -> None:
        self._task = task
        self._input = source
        self.num_batches = 0
        self.pairs: list[tuple[Any, Any]] = []
        self._scalars: list[Any] = []
        self._processed: list[Any] = []
        self._clu_metrics: dict[str, Any] = {}
        self._processed_clu_metrics: dict[str, Any] = {}
        self._summaries: dict[str, list[Any]] = {}

    def add(self, out: StepFnOutput, texts: Mapping[str, Any]) -> None:
        """Takes the results of a batch, and the texts of its inputs; waits for the devices."""
        self.num_batches += 1
        self._scalars.append(out.weighted_scalars)
        self._clu_metrics = merge_clu_metrics(self._clu_metrics, out.clu_metrics or {})
        for key, value in flatten_flax_summaries(jax.device_get(out.summary_tensors)).items():
            if not should_cap_summary(self._summaries, key):
                self._summaries.setdefault(key, []).append(value)
        if jax.process_index() == 0:
            self._process(type(out.per_example_out)(with_texts(out.per_example_out, texts)))

    def _process(self, per_example_out: Any) -> None:
        # On the host, whatever the model computes there: the devices are busy.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            scalars, pairs, *more = self._task.model.process_decode_out(
                self._input, per_example_out
            )
        self._processed.append(scalars)
        self.pairs.extend(pairs)
        self._processed_clu_metrics = merge_clu_metrics(
            self._processed_clu_metrics, (more[0] if more else None) or {}
        )

    def summarize(
        self, writer: SummaryWriter, step: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Writes all metrics and summaries.

        Returns:
          The metrics of `decode`, and those of `process_decode_out`.
        """
        write_summaries(writer, step, self._summaries)
        with writing_to(writer):
            return (
                self._metrics(self._scalars, self._clu_metrics, step, DECODE_METRICS),
                self._metrics(
                    self._processed, self._processed_clu_metrics, step, PROCESSED_METRICS
                ),
            )

    def _metrics(
        self, scalars: list[Any], clu_metrics: dict[str, Any], step: int, prefix: str
    ) -> dict[str, float]:
        aggregator = self._task.metrics_aggregator
        for batch in jax.device_get(scalars):
            if batch:
                aggregator.store(batch)
        reduced = aggregator.summarize(step, prefix)
        computed = compute_metric_values(clu_metrics)
        write_clu_metric_summaries(computed, step, self._task.decode.metrics_prefix)
        values = {name: value for name, (value, _) in reduced.items()} | computed
        return {name: float(np.mean(value)) for name, value in values.items()}

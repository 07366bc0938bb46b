"""Writes what one step, or one evaluation, has to say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paxml.metric.values import compute_metric_values, is_weighted_scalar
from paxml.summary.tensors import get_summary_display_name_from_key, write_tensor
from paxml.summary.writers.base import SummaryWriter
from praxis.core.summaries import (
    SummaryType,
    get_summary_base_type,
    get_summary_type_from_key,
)

METRICS_PREFIX = "Metrics/"
THROUGHPUT_PREFIX = "throughput/"
# A metric whose weights are all zero shows as zero, not as NaN.
_MIN_WEIGHT = 1e-6


def weighted_mean(pairs: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
    """Returns `sum(value * weight) / max(sum(weight), 1e-6)` and the summed weight."""
    values = np.array([np.mean(np.asarray(value, np.float64)) for value, _ in pairs])
    weights = np.array([np.mean(np.asarray(weight, np.float64)) for _, weight in pairs])
    total = float(weights.sum())
    return float((values * weights).sum()) / max(total, _MIN_WEIGHT), total


def mean_of(values: Any) -> float:
    """Returns the plain mean of a number, an array, or a list of them."""
    several = values if isinstance(values, list | tuple) else [values]
    return float(np.mean([np.mean(np.asarray(value, np.float64)) for value in several]))


def merge_summary(key: str, values: Sequence[Any]) -> Any:
    """Merges the values that one summary had over several steps or batches.

    Scalars are averaged, histograms, images, audio and texts put one after the other.
    """
    if len(values) == 1:
        return values[0]
    if get_summary_base_type(get_summary_type_from_key(key)) == SummaryType.SCALAR:
        return mean_of(list(values))
    return np.concatenate([np.atleast_1d(np.asarray(value)) for value in values])


def write_summary_entry(
    summary_writer: SummaryWriter,
    step_i: int,
    loss: Any,
    weighted_scalars_list: Mapping[str, Any] | None,
    clu_metrics: Mapping[str, Any] | None = None,
    summary_tensors: Mapping[str, Any] | None = None,
    steps_per_sec: float | int | None = None,
    metrics_prefix: str = METRICS_PREFIX,
    throughput: Mapping[str, Any] | None = None,
) -> None:
    """Writes loss, speed, metrics and summaries of a step.

    Tags: `loss`, `Steps/sec`, `throughput/<name>`, `Metrics/<name>`, `Metrics/<name>-weight`, and
    `<name>_<type>`.

    Args:
      summary_writer: Where to.
      step_i: Step of the entry.
      loss: Loss, or a list of losses whose plain mean is written.
      weighted_scalars_list: For each metric a pair (value, weight) or a list of them.
      clu_metrics: CLU metrics.
      summary_tensors: For each flat key the value, or a list of values.
      steps_per_sec: Steps per second.
      metrics_prefix: In front of the names of metrics.
      throughput: Further measures of speed by name: a number or a list of them.
    """
    summary_writer.add_scalar("loss", mean_of(loss), step_i)
    if steps_per_sec is not None:
        summary_writer.add_scalar("Steps/sec", mean_of(steps_per_sec), step_i)
    for name, value in (throughput or {}).items():
        summary_writer.add_scalar(f"{THROUGHPUT_PREFIX}{name}", mean_of(value), step_i)
    for name, pairs in (weighted_scalars_list or {}).items():
        mean, weight = weighted_mean([pairs] if is_weighted_scalar(pairs) else pairs)
        summary_writer.add_scalar(f"{metrics_prefix}{name}", mean, step_i)
        summary_writer.add_scalar(f"{metrics_prefix}{name}-weight", weight, step_i)
    if clu_metrics:
        write_values(summary_writer, compute_metric_values(clu_metrics), step_i, metrics_prefix)
    write_summaries(summary_writer, step_i, summary_tensors or {})


def write_summaries(
    summary_writer: SummaryWriter, step_i: int, summary_tensors: Mapping[str, Any]
) -> None:
    """Writes summaries of the model.

    Args:
      summary_writer: Where to.
      step_i: Step of the entry.
      summary_tensors: For each flat key the value, or a list of values.
    """
    for key, value in summary_tensors.items():
        merged = merge_summary(key, value) if isinstance(value, list | tuple) else value
        kind = get_summary_type_from_key(key)
        write_tensor(summary_writer, step_i, get_summary_display_name_from_key(key), merged, kind)
    summary_writer.flush()


def write_values(
    summary_writer: SummaryWriter,
    values: Mapping[str, Any],
    step_i: int,
    metrics_prefix: str = METRICS_PREFIX,
) -> None:
    """Writes numbers under `Metrics/<name>`."""
    for name, value in values.items():
        summary_writer.add_scalar(f"{metrics_prefix}{name}", mean_of(value), step_i)

"""Writing without naming the writer: to the one of the surrounding `with`."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any

from paxml.metric.values import compute_metric_values
from paxml.summary.entry import METRICS_PREFIX, write_values
from paxml.summary.tensors import AUDIO_SUMMARY_SAMPLE_RATE, write_tensor
from paxml.summary.writers.base import SummaryWriter
from praxis.core.summaries import SummaryType

_CURRENT: contextvars.ContextVar[SummaryWriter | None] = contextvars.ContextVar(
    "summary_writer", default=None
)


@contextlib.contextmanager
def writing_to(writer: SummaryWriter) -> Iterator[SummaryWriter]:
    """Makes a writer the current one."""
    token = _CURRENT.set(writer)
    try:
        yield writer
    finally:
        _CURRENT.reset(token)


def current_writer() -> SummaryWriter:
    """Returns the current writer.

    Raises:
      RuntimeError: outside of `writing_to`.
    """
    writer = _CURRENT.get()
    if writer is None:
        raise RuntimeError(
            "No summary writer is current. Call this inside `with writing_to(writer):`."
        )
    return writer


def write_summary_tensor(
    step_i: int,
    key: str,
    tensor: Any,
    summary_type: SummaryType,
    metadata: Any = None,
    sample_rate: int = AUDIO_SUMMARY_SAMPLE_RATE,
) -> None:
    """Writes a summary of any type to the current writer, see `paxml.summary.tensors`."""
    write_tensor(current_writer(), step_i, key, tensor, summary_type, metadata, sample_rate)


def write_clu_metric_summaries(
    metric_values: Mapping[str, Any], step_i: int, metrics_prefix: str = METRICS_PREFIX
) -> None:
    """Writes computed CLU metrics to the current writer, under `Metrics/<name>`."""
    write_values(current_writer(), metric_values, step_i, metrics_prefix)


def compute_and_write_clu_metric_summaries(
    metrics: Mapping[str, Any], step: int, metrics_prefix: str = METRICS_PREFIX
) -> None:
    """Computes CLU metrics and writes them to the current writer, under `Metrics/<name>`."""
    write_clu_metric_summaries(compute_metric_values(metrics), step, metrics_prefix)

"""Metrics that an input computes from the outputs of a whole evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from paxml.metric.values import as_float, is_float_convertible
from paxml.summary.current import write_clu_metric_summaries, write_summary_tensor
from praxis.core.summaries import SummaryType


def write_seqio_metric_summaries(
    seqio_metrics: Sequence[Mapping[str, Any]], metric_name_prefix: str, step: int
) -> None:
    """Writes scoring metrics to the current writer, under `<prefix>/<name>`.

    Args:
      seqio_metrics: Maps from a name to a number, to an object that holds one in `value`, or to
        one that holds texts in `textdata`.
      metric_name_prefix: `scoring_eval` or `decoder`.
      step: Step of the entry.

    Raises:
      TypeError: for another value, naming the metric.
    """
    for metrics in seqio_metrics:
        for name, value in metrics.items():
            if hasattr(value, "textdata"):
                tag = f"{metric_name_prefix}/{name}"
                write_summary_tensor(step, tag, value.textdata, SummaryType.TEXT)
            elif is_float_convertible(value):
                numbers = {name: as_float(value)}
                write_clu_metric_summaries(numbers, step, f"{metric_name_prefix}/")
            else:
                raise TypeError(
                    f"Scoring metric {name!r} is a {type(value).__name__}, expected a number, or "
                    "an object with a number in `value` or texts in `textdata`."
                )

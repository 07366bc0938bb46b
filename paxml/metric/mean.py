"""Metrics averaged, or maximized, over the batches of an evaluation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from paxml.metric.base import BaseMetrics, Reduced


class MeanMetrics(BaseMetrics):
    """Weighted mean of each metric, `sum(value * weight) / sum(weight)`, with the summed weight.

    Attributes:
      metric_keys: Names to keep; None keeps all.
    """

    metric_keys: Sequence[str] | None = None

    def finalize(self) -> Reduced:
        batches = self._take()
        names = _names(batches, self.metric_keys, type(self).__name__)
        return {name: _weighted_mean([batch[name] for batch in batches]) for name in names}


class MaxMetrics(BaseMetrics):
    """Largest value of each metric over the batches, with the summed weight.

    Attributes:
      metric_keys: Names to keep; None keeps all.
    """

    metric_keys: Sequence[str] | None = None

    def finalize(self) -> Reduced:
        batches = self._take()
        names = _names(batches, self.metric_keys, type(self).__name__)
        return {name: _largest([batch[name] for batch in batches]) for name in names}


def _names(batches: Sequence[Any], wanted: Sequence[str] | None, title: str) -> Sequence[str]:
    if not batches:
        return []
    if wanted is None:
        return list(batches[0])
    if missing := sorted(set(wanted) - set(batches[0])):
        raise KeyError(
            f"{title}: metric_keys names {missing}, but the model has the metrics "
            f"{sorted(batches[0])}."
        )
    return wanted


def _weighted_mean(pairs: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    values, weights = _columns(pairs)
    total = weights.sum(0)
    # As in the summaries, a total weight of zero gives zero rather than NaN.
    mean = (values * weights).sum(0) / np.maximum(total, 1e-6)
    return np.asarray(mean), np.asarray(total)


def _largest(pairs: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    values, weights = _columns(pairs)
    return np.asarray(values.max(0)), np.asarray(weights.sum(0))


def _columns(pairs: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([np.asarray(value, np.float64) for value, _ in pairs])
    weights = np.array([np.asarray(weight, np.float64) for _, weight in pairs])
    return values, weights

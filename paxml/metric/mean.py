"""Metrics averaged over the batches of an evaluation."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from praxis import base_hyperparams

WeightedScalars = Mapping[str, Any]


class BaseMetrics(base_hyperparams.FiddleBaseParameterizable, abc.ABC):
    """Collects the metrics of several batches and reduces them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._batches: list[WeightedScalars] = []

    def store(self, batch_metrics: WeightedScalars, reshard: bool = False) -> None:
        """Keeps the metrics of one batch. `reshard` belongs to the old per-device mode: ignored."""
        del reshard
        self._batches.append(batch_metrics)

    def aggregate(self, batch_metrics: WeightedScalars, reshard: bool = False) -> Any:
        """The reduction of the metrics of a single batch."""
        self.store(batch_metrics, reshard)
        return self.finalize()

    @abc.abstractmethod
    def finalize(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The reduction of what was stored, as (value, weight); forgets the batches."""


class MeanMetrics(BaseMetrics):
    """Weighted mean of each metric, `sum(value * weight) / sum(weight)`, with the summed weight.

    Attributes:
      metric_keys: Names to keep; None keeps all.
    """

    metric_keys: Sequence[str] | None = None

    def finalize(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        batches, self._batches = self._batches, []
        if not batches:
            return {}
        keys = batches[0] if self.metric_keys is None else self.metric_keys
        return {key: _weighted_mean([batch[key] for batch in batches]) for key in keys}


def _weighted_mean(pairs: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([np.asarray(value, np.float64) for value, _ in pairs])
    weights = np.array([np.asarray(weight, np.float64) for _, weight in pairs])
    total = weights.sum(0)
    # As in the summaries, a total weight of zero gives zero rather than NaN.
    mean = (values * weights).sum(0) / np.maximum(total, 1e-6)
    return np.asarray(mean), np.asarray(total)

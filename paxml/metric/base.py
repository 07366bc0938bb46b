"""What metrics over several batches have in common."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from paxml.summary.current import write_clu_metric_summaries
from praxis import base_hyperparams

WeightedScalars = Mapping[str, Any]
Reduced = dict[str, tuple[np.ndarray, np.ndarray]]


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
    def finalize(self) -> Reduced:
        """The reduction of what was stored, as (value, weight); forgets the batches."""

    def summarize(self, step_i: int, prefix: str) -> Reduced:
        """Reduces what was stored and writes it to the current summary writer.

        Args:
          step_i: Step of the entry.
          prefix: Tags are `<prefix>/<name>` and `<prefix>/<name>-weight`.

        Returns:
          The reduction.

        Raises:
          RuntimeError: outside of `summary_utils.writing_to`.
        """
        reduced = self.finalize()
        for name, (value, weight) in reduced.items():
            values = {name: value, f"{name}-weight": weight}
            write_clu_metric_summaries(values, step_i, f"{prefix}/")
        return reduced

    def _take(self) -> list[WeightedScalars]:
        batches, self._batches = self._batches, []
        return batches

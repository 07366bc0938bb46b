"""Several reductions of the same metrics."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from paxml.metric.base import BaseMetrics, Reduced, WeightedScalars
from praxis import pax_fiddle


class CompositeMetrics(BaseMetrics):
    """The results of several metrics together; of two with one name, the later one wins.

    Attributes:
      metrics_p: Configs of the metrics. Required.
      metrics_calcs: The metrics, built.

    Raises:
      ValueError: at construction, without metrics.
    """

    metrics_p: Sequence[pax_fiddle.Config[BaseMetrics]] | None = None
    metrics_calcs: Any = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.metrics_p:
            raise ValueError("CompositeMetrics: metrics_p is empty; give configs of metrics.")
        self.metrics_calcs = [pax_fiddle.instantiate(config) for config in self.metrics_p]

    def store(self, batch_metrics: WeightedScalars, reshard: bool = False) -> None:
        for metrics in self.metrics_calcs:
            metrics.store(batch_metrics, reshard)

    def finalize(self) -> Reduced:
        results = [metrics.finalize() for metrics in self.metrics_calcs]
        return {name: pair for result in results for name, pair in result.items()}

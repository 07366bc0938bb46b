"""Metrics over batches and the loss among them, under their public path."""

from paxml.metric.base import BaseMetrics
from paxml.metric.composite import CompositeMetrics
from paxml.metric.histogram import HistogramMetrics
from paxml.metric.loss import LossAggregator, MultiLossAggregator
from paxml.metric.mean import MaxMetrics, MeanMetrics
from paxml.metric.weighted import WeightedScalarCluMetric
from praxis.base_layer import PMAP_PARALLEL_AXIS_NAME

__all__ = [
    "PMAP_PARALLEL_AXIS_NAME",
    "BaseMetrics",
    "CompositeMetrics",
    "HistogramMetrics",
    "LossAggregator",
    "MaxMetrics",
    "MeanMetrics",
    "MultiLossAggregator",
    "WeightedScalarCluMetric",
]

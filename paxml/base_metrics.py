"""Metrics over batches and the loss among them, under their public path."""

from paxml.metric.loss import LossAggregator, MultiLossAggregator
from paxml.metric.mean import BaseMetrics, MeanMetrics

__all__ = ["BaseMetrics", "LossAggregator", "MeanMetrics", "MultiLossAggregator"]

"""From the metrics of a step to the number that is differentiated."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from praxis import base_hyperparams

Metrics = Mapping[str, Any]


class AggregatedLoss(NamedTuple):
    """The loss of a step.

    Attributes:
      weighted_loss: What is differentiated.
      mean_loss: What is reported as `loss`.
      loss_weight: Number of examples or tokens behind it; carries no gradient.
    """

    weighted_loss: jax.Array
    mean_loss: jax.Array
    loss_weight: jax.Array


class LossAggregator(base_hyperparams.FiddleBaseParameterizable):
    """Takes one metric as the loss.

    One compiled program sees the global batch, so the mean over it is already the loss and is
    differentiated as it is.

    Attributes:
      loss_key: Name of the metric, a (value, weight) pair. Required.

    Raises:
      KeyError: if the step has no metric of that name.
      TypeError: if it is not a (value, weight) pair.
    """

    loss_key: str | None = None

    def aggregate(self, batch_metrics: Metrics) -> AggregatedLoss:
        return _loss_of(batch_metrics, self.loss_key)


class MultiLossAggregator(LossAggregator):
    """The plain sum of several metrics is the loss.

    Attributes:
      loss_keys: Names of the metrics, each a (value, weight) pair. Required.
    """

    loss_keys: Sequence[str] | None = None

    def aggregate(self, batch_metrics: Metrics) -> AggregatedLoss:
        if not self.loss_keys:
            raise ValueError("MultiLossAggregator: loss_keys is empty; name at least one metric.")
        losses = [_loss_of(batch_metrics, key) for key in self.loss_keys]
        return AggregatedLoss(*(jnp.stack(parts).sum(0) for parts in zip(*losses, strict=True)))


def _loss_of(metrics: Metrics, key: str | None) -> AggregatedLoss:
    if key is None or key not in metrics:
        raise KeyError(
            f"The model has no metric {key!r} to use as the loss; it has {sorted(metrics)}. "
            "Set loss_name of the learner to one of them."
        )
    metric: Any = metrics[key]
    if hasattr(metric, "weighted_value") and hasattr(metric, "weight"):
        value, weight = metric.compute(), metric.weight
    elif isinstance(metric, tuple | list) and len(metric) == 2:
        value, weight = metric
    else:
        raise TypeError(
            f"Metric {key!r} is a {type(metric).__name__}, expected a (value, weight) pair or a "
            "WeightedScalarCluMetric. Only these can be the loss."
        )
    loss = jnp.asarray(value).astype(jnp.float32)
    weight = jax.lax.stop_gradient(jnp.asarray(weight))
    return AggregatedLoss(loss, loss, weight)

"""Losses and means of metrics (behaviours 56, 106)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paxml import base_metrics

METRICS = {"a": (jnp.float32(2.0), jnp.float32(4.0)), "b": (jnp.float32(3.0), jnp.float32(5.0))}


def test_one_metric_is_the_loss():
    loss, mean, weight = base_metrics.LossAggregator(loss_key="a").aggregate(METRICS)
    assert (float(loss), float(mean), float(weight)) == (2.0, 2.0, 4.0)


def test_several_losses_add_up():
    result = base_metrics.MultiLossAggregator(loss_keys=["a", "b"]).aggregate(METRICS)
    assert (float(result.weighted_loss), float(result.loss_weight)) == (5.0, 9.0)
    with pytest.raises(ValueError, match="loss_keys is empty"):
        base_metrics.MultiLossAggregator().aggregate(METRICS)


def test_the_weight_has_no_gradient_and_a_narrow_loss_is_widened():
    def loss_of(x):
        metrics = {"a": (x.astype(jnp.bfloat16), x)}
        result = base_metrics.LossAggregator(loss_key="a").aggregate(metrics)
        assert result.mean_loss.dtype == jnp.float32
        return result.weighted_loss + result.loss_weight

    assert float(jax.grad(loss_of)(jnp.float32(2.0))) == 1.0


def test_wrong_metrics_are_named():
    with pytest.raises(KeyError, match=r"no metric 'c'.*\['a', 'b'\]"):
        base_metrics.LossAggregator(loss_key="c").aggregate(METRICS)
    with pytest.raises(TypeError, match=r"'a' is a float, expected a .value, weight. pair"):
        base_metrics.LossAggregator(loss_key="a").aggregate({"a": 1.0})


def test_means_are_weighted_over_batches():
    mean = base_metrics.MeanMetrics()
    mean.store({"a": (1.0, 1.0), "b": (np.array([1.0, 2.0]), np.array([1.0, 0.0]))})
    mean.store({"a": (3.0, 3.0), "b": (np.array([2.0, 2.0]), np.array([1.0, 0.0]))})
    result = mean.finalize()
    np.testing.assert_allclose(result["a"], (2.5, 4.0))
    np.testing.assert_allclose(result["b"], [[1.5, 0.0], [2.0, 0.0]])
    assert mean.finalize() == {}
    only = base_metrics.MeanMetrics(metric_keys=["a"])
    assert list(only.aggregate({"a": (1.0, 1.0), "b": (1.0, 1.0)})) == ["a"]

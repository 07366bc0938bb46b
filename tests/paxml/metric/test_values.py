"""Metrics as plain numbers (trainer 10.3, behaviour 57)."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from paxml import metric_utils


@dataclasses.dataclass
class Computed:
    """Stands where a CLU metric would; those are known by these two methods."""

    result: object

    def compute(self):
        return self.result

    def merge(self, other):
        return Computed((self.result, other.result))


@dataclasses.dataclass
class Wrapped:
    value: float


@pytest.mark.parametrize(
    ("metric", "number"),
    [
        (3, 3.0),
        (np.float32(0.5), 0.5),
        (jnp.ones([1]) * 7, 7.0),
        (Wrapped(2.5), 2.5),
        ((jnp.float32(4), jnp.float32(2)), 4.0),
        ([(1.0, 1.0), (3.0, 3.0)], 2.5),
        ([(np.array([1.0, 2.0]), np.array([1.0, 0.0]))], 1.0),
    ],
)
def test_as_float(metric, number):
    assert metric_utils.is_float_convertible(metric)
    assert metric_utils.as_float(metric) == number


def test_weights_of_zero_give_nan():
    assert math.isnan(metric_utils.as_float([(1.0, 0.0)]))


@pytest.mark.parametrize("metric", ["text", None, [], [1.0], np.ones([2])])
def test_what_is_no_number(metric):
    assert not metric_utils.is_float_convertible(metric)
    with pytest.raises(TypeError, match="expected a number or pairs"):
        metric_utils.as_float(metric)
    assert metric_utils.as_float_dict({"a": 1, "b": metric}) == {"a": 1.0}
    with pytest.raises(TypeError, match="Metric 'b' is"):
        metric_utils.as_float_dict({"b": metric}, raise_on_non_float_convertible=True)


def test_kinds():
    assert metric_utils.is_scalar(np.ones([1, 1]))
    assert not metric_utils.is_scalar(np.ones([2]))
    assert metric_utils.is_weighted_scalar((1.0, jnp.ones([])))
    assert not metric_utils.is_weighted_scalar([1.0, 1.0])
    assert not metric_utils.is_weighted_scalar((1.0, 1.0, 1.0))


def test_update_with_and_without_prefix():
    target = {"a": 1.0}
    assert metric_utils.update_float_dict(target, {"b": 2.0}, "eval") is target
    metric_utils.update_float_dict(target, {"a": 3.0})
    assert target == {"a": 3.0, "eval/b": 2.0}


def test_one_kind_of_metrics():
    pairs, clu = {"a": (1.0, 2.0)}, {"b": Computed(1.0)}
    assert metric_utils.extract_weighted_scalars_and_clu_metrics(pairs) == (pairs, {})
    assert metric_utils.extract_weighted_scalars_and_clu_metrics(clu) == ({}, clu)
    with pytest.raises(TypeError, match="such as 'a', and CLU metrics, such as 'b'"):
        metric_utils.extract_weighted_scalars_and_clu_metrics({**pairs, **clu})
    with pytest.raises(TypeError, match="Metric 'c' is 5, expected a pair"):
        metric_utils.extract_weighted_scalars_and_clu_metrics({"c": 5})


def test_computed_values_are_flat():
    metrics = {
        "one": Computed(1.0),
        "many": Computed([2.0, 3.0]),
        "named": Computed({"x": 4.0, "y": [5.0, 6.0]}),
    }
    assert metric_utils.compute_metric_values(metrics) == {
        "one": 1.0,
        "many/many_0": 2.0,
        "many/many_1": 3.0,
        "named/x": 4.0,
        "named/y_0": 5.0,
        "named/y_1": 6.0,
    }
    with pytest.raises(ValueError, match="Metric 'bad' computed a str"):
        metric_utils.compute_metric_values({"bad": Computed("text")})


def test_merge():
    first, second = {"a": Computed(1)}, {"a": Computed(2)}
    assert metric_utils.merge_clu_metrics({}, first) == first
    assert metric_utils.merge_clu_metrics(first, second)["a"].result == (1, 2)
    with pytest.raises(ValueError, match="other names: b are only in one"):
        metric_utils.merge_clu_metrics(first, {"a": Computed(1), "b": Computed(2)})

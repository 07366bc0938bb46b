"""Metrics over batches (trainer 10.3)."""

import numpy as np
import pytest

from paxml import base_metrics
from paxml.summary.events import read_scalars
from paxml.summary_utils import get_summary_writer, writing_to
from praxis import pax_fiddle

BATCHES = [
    {"a": (1.0, 1.0), "b": (np.array([1, 0, 3, 0]), 2.0)},
    {"a": (3.0, 3.0), "b": (np.array([3, 0, 1, 0]), 2.0)},
]


def reduced(cls, batches=BATCHES, **settings):
    metrics = pax_fiddle.instantiate(pax_fiddle.Config(cls, **settings))
    for batch in batches:
        metrics.store(batch)
    result = metrics.finalize()
    assert metrics.finalize() == {}, "finalize forgets the batches"
    return {name: tuple(map(float, pair)) for name, pair in result.items()}


def test_mean_and_maximum_take_the_names_that_are_asked_for():
    assert reduced(base_metrics.MeanMetrics, metric_keys=["a"]) == {"a": (2.5, 4.0)}
    assert reduced(base_metrics.MaxMetrics, metric_keys=["a"]) == {"a": (3.0, 4.0)}
    with pytest.raises(KeyError, match=r"metric_keys names \['c'\], .*\['a', 'b'\]"):
        reduced(base_metrics.MaxMetrics, metric_keys=["c"])


def test_histogram():
    """Four hits in each of two of four bins."""
    result = reduced(base_metrics.HistogramMetrics, histogram_key="b")
    assert list(result) == ["b_pplx", "b_entropy", "b_coverage"]
    want = [(2.0, 4.0), (np.log(2), 4.0), (0.5, 4.0)]
    np.testing.assert_allclose(list(result.values()), want)
    with pytest.raises(KeyError, match="histogram_key is None"):
        reduced(base_metrics.HistogramMetrics)


def test_composite_joins_and_summarize_writes(tmp_path):
    parts = [
        pax_fiddle.Config(base_metrics.MeanMetrics, metric_keys=["a"]),
        pax_fiddle.Config(base_metrics.HistogramMetrics, histogram_key="b"),
    ]
    config = pax_fiddle.Config(base_metrics.CompositeMetrics, metrics_p=parts)
    metrics = pax_fiddle.instantiate(config)
    for batch in BATCHES:
        metrics.store(batch)
    with get_summary_writer(tmp_path) as writer, writing_to(writer):
        result = metrics.summarize(3, "all")
    assert sorted(result) == ["a", "b_coverage", "b_entropy", "b_pplx"]
    assert read_scalars(tmp_path, "all/a") == {3: 2.5}
    assert read_scalars(tmp_path, "all/b_pplx-weight") == {3: 4.0}
    with pytest.raises(ValueError, match="metrics_p is empty"):
        base_metrics.CompositeMetrics()


def test_weighted_scalar_merges():
    create = base_metrics.WeightedScalarCluMetric.create
    merged = create(1.0, 1.0).merge(create(3.0, 3.0))
    assert float(merged.compute()) == 2.5
    smaller = merged.replace(weight=2.0)  # pyright: ignore[reportAttributeAccessIssue]  # by flax
    assert float(smaller.compute()) == 5.0

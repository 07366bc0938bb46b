"""Sizes of parts, summaries of replicas, scoring metrics."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paxml import summary_utils
from paxml.summary.events import read_scalars


def test_l2_mean_groups_by_the_first_keys():
    tree = {"a": {"w": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 4.0])}, "c": jnp.ones([2, 2])}
    values = summary_utils.l2_mean(tree, prefix="net", max_level=1)
    assert {name: float(value) for name, value in values.items()} == {"net/a": 2.5, "net/c": 1.0}
    assert sorted(summary_utils.l2_mean(tree, sep=".")) == ["a.b", "a.w", "c"]


def test_replicas_average_scalars_and_join_the_rest():
    summaries = {"loss_scalar": jnp.array([1.0, 3.0]), "w_histogram": jnp.arange(4.0).reshape(2, 2)}
    joined = jax.vmap(summary_utils.aggregate_per_replica_summaries, axis_name="batch")(summaries)
    np.testing.assert_array_equal(joined["loss_scalar"], [2.0, 2.0])
    np.testing.assert_array_equal(joined["w_histogram"], [[0, 1, 2, 3]] * 2)


@dataclasses.dataclass
class Score:
    value: Any


def test_scoring_metrics_are_numbers_or_texts(tmp_path):
    with (
        summary_utils.get_summary_writer(tmp_path) as writer,
        summary_utils.writing_to(writer),
    ):
        metrics = [{"bleu": Score(0.5)}, {"accuracy": 0.25}]
        summary_utils.write_seqio_metric_summaries(metrics, "scoring_eval", 4)
        with pytest.raises(TypeError, match="Scoring metric 'bad' is a dict"):
            summary_utils.write_seqio_metric_summaries([{"bad": {}}], "scoring_eval", 4)
    assert read_scalars(tmp_path, "scoring_eval/bleu") == {4: 0.5}
    assert read_scalars(tmp_path, "scoring_eval/accuracy") == {4: 0.25}

"""The toys: a few steps of each, and what they measure with."""

import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

pytest.importorskip("sklearn")

from examples.toys import ctc, recall, run


@pytest.fixture(autouse=True)
def fast_compiles():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("name", run.TOYS)
def test_a_few_steps_of_each_toy_give_a_number(name):
    assert -1.0 < run.TOYS[name].reach(2) <= 1.0


def test_exit_code_tells_that_a_threshold_is_missed(monkeypatch, capsys):
    monkeypatch.setattr(ctc, "reach", lambda steps: 1.0)
    assert run.main(["--only", "ctc"]) == 0
    monkeypatch.setattr(recall, "reach", lambda steps: 0.5)
    assert run.main(["--only", "ctc", "recall"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("recall: ") and " 0.500, BELOW 0.9" in lines[2]


def test_sequences_of_symbols_have_their_labels():
    data = ctc.examples(20, np.random.default_rng(0))
    assert data.features.shape[:2] == data.paddings.shape
    lengths = (1 - data.label_paddings).sum(1)
    assert lengths.min() >= 3 and lengths.max() == 6
    np.testing.assert_array_equal(data.labels > 0, data.label_paddings == 0)


def test_decoding_merges_repetitions_and_drops_blanks():
    frames = np.eye(4)[[[0, 1, 1, 0, 1, 3, 3, 2], [2, 2, 0, 0, 0, 0, 0, 0]]]
    paddings = np.zeros([2, 8])
    paddings[0, 6:] = 1
    assert ctc.decode(frames, paddings) == [[1, 1, 3], [2]]


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3)]
)
def test_edit_distance(first, second, distance):
    assert ctc.edit_distance(list(first), list(second)) == distance


def test_the_symbol_to_recall_is_early():
    data = recall.examples(50, np.random.default_rng(0))
    rows, columns = np.nonzero(data.ids < data.label_probs.shape[1])
    np.testing.assert_array_equal(rows, np.arange(50))
    assert columns.max() < 50
    np.testing.assert_array_equal(data.ids[rows, columns], data.label_probs.argmax(1))

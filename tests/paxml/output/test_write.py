"""Output files (behaviours 102, 103)."""

import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from paxml import programs

EVAL = programs.EvaluationMode.EVAL


def test_one_entry_for_each_example_of_each_batch(tmp_path):
    batches = [
        {"a": np.arange(6.0).reshape(2, 3), "text": np.array([b"x", b"y"], object)},
        {"a": jnp.ones([1, 3]), "text": np.array([b"z"], object)},
    ]
    assert not programs.can_load_written_outputs(tmp_path, "in", EVAL, 7)
    programs.maybe_write_eval_outputs(EVAL, tmp_path / "eval_out" / "in", 7, batches)
    assert programs.can_load_written_outputs(tmp_path, "in", EVAL, 7)
    stem = tmp_path / "eval_out" / "in" / "eval_out_7_shard_0"
    rows = [json.loads(line) for line in stem.with_suffix(".jsonl").read_text().splitlines()]
    assert rows == [
        {"a": [0.0, 1.0, 2.0], "text": "x"},
        {"a": [3.0, 4.0, 5.0], "text": "y"},
        {"a": [1.0, 1.0, 1.0], "text": "z"},
    ]
    pairs = pickle.loads(stem.with_suffix(".pickle").read_bytes())
    assert [key for key, _ in pairs] == [None] * 3
    assert all(isinstance(value["a"], np.ndarray) for _, value in pairs)


def test_without_outputs_there_is_no_file(tmp_path):
    programs.maybe_write_eval_outputs(EVAL, tmp_path, 7, [{}, {}])
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_json_names_key_and_type_and_leaves_no_file(tmp_path):
    pairs = [("good", 1), ("bad", {1, 2})]
    with pytest.raises(TypeError, match="key 'bad' is a set that cannot be written as JSON"):
        programs.safe_write_key_value_pairs(tmp_path / "out", pairs)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_match_are_told(tmp_path):
    batch = {"a": np.ones([2]), "b": np.ones([3])}
    with pytest.raises(ValueError, match=r"batch sizes \[2, 3\]"):
        programs.maybe_write_eval_outputs(EVAL, tmp_path, 7, [batch])

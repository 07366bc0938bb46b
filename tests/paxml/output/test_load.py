"""Reading outputs (behaviour 104)."""

import pickle

import pytest

from paxml import io_utils


def test_shards_are_joined_and_a_missing_one_is_named(tmp_path):
    directory = tmp_path / "in"
    with pytest.raises(ValueError, match=r"has no files out_<step>_shard_<n>\.pickle"):
        io_utils.load_outputs(tmp_path, "in", "out")
    directory.mkdir()
    for shard in (0, 2):
        (directory / f"out_7_shard_{shard}.pickle").write_bytes(pickle.dumps([(shard, "x")]))
    with pytest.raises(ValueError, match=r"shards \[1\] of out at step 7 are missing; .*\[0, 2\]"):
        io_utils.load_outputs(tmp_path, "in", "out")
    (directory / "out_7_shard_1.pickle").write_bytes(pickle.dumps([(1, "y")]))
    assert io_utils.load_outputs(tmp_path, "in", "out") == [(0, "x"), (1, "y"), (2, "x")]

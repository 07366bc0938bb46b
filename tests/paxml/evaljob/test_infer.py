"""Inference jobs: records of a user's runner, on any mesh."""

import json

import numpy as np
import pytest
import toy_decoding

from paxml import eval_lib
from paxml.io_utils import OutputFormatType, ShardedParallelWriter
from paxml.tasks_lib import SingleTask
from praxis import pax_fiddle


def writer(**settings):
    settings = {"output_format": OutputFormatType.JSONL, "output_num_shards": 2, **settings}
    runner = pax_fiddle.Config(toy_decoding.Runner)
    return pax_fiddle.Config(SingleTask.InferWriter, inference_runner=runner, **settings)


def test_one_record_for_each_example_in_turn_over_the_shards(trained, tmp_path):
    experiment = toy_decoding.variant(
        DECODE_BATCH=3,
        INFER_WRITER=writer(restore_checkpoint_dir=str(trained / "checkpoints")),
    )
    eval_lib.infer_and_write(experiment, tmp_path)
    files = sorted((tmp_path / "output" / "held_out").iterdir())
    assert [path.name for path in files] == [
        "output.jsonl-00000-of-00002",
        "output.jsonl-00001-of-00002",
    ]
    shards = [[json.loads(line) for line in path.read_text().splitlines()] for path in files]
    assert [len(shard) for shard in shards] == [3, 3]
    records = [row for pair in zip(*shards, strict=True) for row in pair]
    x = np.concatenate(
        [
            np.random.default_rng(batch).standard_normal((3, 3)).astype(np.float32)
            for batch in (0, 1)
        ]
    )
    np.testing.assert_allclose([record["x"] for record in records], x, rtol=1e-6)
    assert all(np.shape(record["error"]) == () for record in records)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'toy' has no inference runner\. Set .*infer_writer"):
        eval_lib.infer_and_write(toy_decoding.variant(), tmp_path)
    settings = writer(output_format=OutputFormatType.TFRECORD)
    with pytest.raises(NotImplementedError, match=r"TFRECORD needs TensorFlow.*JSONL"):
        eval_lib.infer_and_write(toy_decoding.variant(INFER_WRITER=settings), tmp_path)
    empty = toy_decoding.variant(INFER_WRITER=writer(), decode_datasets=lambda self: [])
    with pytest.raises(ValueError, match=r"Variant has no decode_datasets\(\)"):
        eval_lib.infer_and_write(empty, tmp_path)
    with pytest.raises(NotImplementedError, match=r"Call infer_and_write\(experiment, job_log_dir"):
        eval_lib.infer_and_write_pmap(None, None, None, None, None, tmp_path)


def test_outputs_of_a_runner_need_one_batch_axis():
    runner = toy_decoding.Runner()
    assert runner.output_schema is None
    records = runner.serialize_outputs({"a": np.arange(2), "b": np.ones([2, 1])})
    assert [json.loads(record) for record in records] == [
        {"a": 0, "b": [1.0]},
        {"a": 1, "b": [1.0]},
    ]
    for outputs in ({"a": np.ones([2]), "b": np.ones([3])}, {"a": np.float32(1)}, {}):
        with pytest.raises(ValueError, match=r"outputs of infer have shapes .* \[B, \.\.\.\]"):
            runner.serialize_outputs(outputs)


def test_a_writer_leaves_no_file_behind_an_error(tmp_path):
    form = OutputFormatType.JSONL
    with pytest.raises(KeyError), ShardedParallelWriter(tmp_path / "x", 2, form) as records:
        records.write([b"{}"])
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with ShardedParallelWriter(tmp_path / "x", 2, form) as records:
        records.write([b"1", b"2", b"3"])
        with pytest.raises(ValueError, match="holds a line break"):
            records.write([b"1\n2"])
        assert all(path.name.endswith(".tmp") for path in tmp_path.iterdir())
    assert (tmp_path / "x-00000-of-00002").read_bytes() == b"1\n3\n"
    assert (tmp_path / "x-00001-of-00002").read_bytes() == b"2\n"
    with pytest.raises(ValueError, match="num_shards is 0, expected at least 1"):
        ShardedParallelWriter(tmp_path / "y", 0, form)

"""The demo's data: no file on both sides, every byte counted once."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from examples.stdlib_lm import data

SPLIT = data.Split(
    ["a.py", "b.py", "empty.py", "c.py"], [b"x = 1\n", bytes(range(1, 120)), b"", b"y" * 37]
)


def test_no_file_is_on_both_sides():
    train, held_out = data.load()
    assert not set(train.names) & set(held_out.names)
    assert all(map(data.is_eval, held_out.names)) and not any(map(data.is_eval, train.names))
    assert train.num_bytes > 10 * held_out.num_bytes > 0


@pytest.mark.parametrize(("row_length", "stride"), [(16, 8), (16, 16), (16, 5), (200, 100)])
def test_evaluation_counts_every_byte_once(row_length, stride):
    rows = data.eval_rows(SPLIT, row_length, stride, multiple_of=4)
    assert len(rows["ids"]) % 4 == 0
    counted = rows["labels"][rows["weights"] == 1]
    assert sorted(counted) == sorted(b"".join(SPLIT.texts))
    assert not rows["weights"][rows["paddings"] == 1].any()
    inside = rows["paddings"] == 0
    before = inside[:, 1:] & inside[:, :-1]
    np.testing.assert_array_equal(rows["ids"][:, 1:][before], rows["labels"][:, :-1][before])


def test_training_rows_separate_files():
    rows = data.train_rows(SPLIT, 16)
    text = b"".join(SPLIT.texts)
    assert bytes(rows["labels"].astype(np.uint8).ravel()) == text[: rows["labels"].size]
    new_file = np.diff(rows["segment_ids"], axis=1) > 0
    assert new_file.sum() == 2
    np.testing.assert_array_equal(rows["ids"][:, 1:][new_file], data.START)
    np.testing.assert_array_equal(rows["segment_pos"][:, 1:][new_file], 0)
    assert rows["ids"][0, 0] == data.START


def test_compressors_are_real():
    sizes = {name: SPLIT.compressed_bytes(f) for name, f in data.compressors().items()}
    assert set(sizes) == {"gzip", "xz"} and min(sizes.values()) > 20

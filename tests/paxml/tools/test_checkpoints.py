"""Looking at checkpoints."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from paxml import train_states
from paxml.checkpoint.manager import Checkpointer
from paxml.tools import checkpoints


def state(width=3, dtype=jnp.float32, **variables):
    params = {"w": jnp.arange(2 * width, dtype=dtype).reshape(2, width), **variables}
    return train_states.TrainState(step=jnp.uint32(0), mdl_vars={"params": params}, opt_states=[])


def save(directory, saved, steps=(1,)):
    directory.mkdir(parents=True)
    checkpointer = Checkpointer(
        directory, save_interval_steps=1, max_to_keep=None, async_save=False
    )
    for step in steps:
        checkpointer.save(step, saved, unpadded_shapes=saved)
    checkpointer.close()
    return directory


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "checkpoints", state(), steps=(1, 2, 3))


def test_list_with_a_damaged_step(saved):
    empty = saved / "checkpoint_00000004"
    empty.mkdir()
    found = checkpoints.list_checkpoints(saved.parent)
    assert [info.step for info in found] == [1, 2, 3, 4]
    assert [info.problem for info in found] == [None, None, None, "the directory is empty"]
    assert found[0].num_bytes == sum(
        path.stat().st_size for path in pathlib.Path(found[0].path).rglob("*") if path.is_file()
    )
    assert "4 in all" in str(checkpoints.checkpoints_table(found))
    assert checkpoints.find_checkpoint(saved).name == "checkpoint_00000003"
    with pytest.raises(ValueError, match="checkpoint_00000004 cannot be read: the directory is"):
        checkpoints.find_checkpoint(saved, 4)
    empty.rmdir()


def test_one_step_is_found_by_number_or_by_its_own_directory(saved):
    path = checkpoints.find_checkpoint(saved, 2)
    assert checkpoints.find_checkpoint(path) == path
    with pytest.raises(ValueError, match=r"no checkpoint of step 7; it has \[1, 2, 3\]"):
        checkpoints.find_checkpoint(saved, 7)


def test_directory_without_checkpoints(tmp_path):
    with pytest.raises(ValueError, match=r"has no checkpoints\. Give the job_log_dir"):
        checkpoints.list_checkpoints(tmp_path)
    with pytest.raises(ValueError, match="none does not exist"):
        checkpoints.list_checkpoints(tmp_path / "none")


def test_arrays_of_a_step(saved):
    table = checkpoints.arrays_table(checkpoints.find_checkpoint(saved))
    assert list(table.rows) == [
        ("mdl_vars.params.w", "2x3", "float32", "6", "24 B"),
        ("step", "scalar", "uint32", "1", "4 B"),
    ]
    assert table.totals is not None
    assert table.totals[3:] == ("7", "28 B")


def test_difference_of_shapes_dtypes_and_names(saved, tmp_path):
    other = save(tmp_path / "other", state(width=5, b=jnp.zeros([2], jnp.bfloat16)))
    before, after = checkpoints.find_checkpoint(saved), checkpoints.find_checkpoint(other)
    assert list(checkpoints.arrays_diff(before, after).rows) == [
        ("mdl_vars.params.b", "", "bfloat16[2]"),
        ("mdl_vars.params.w", "float32[2,3]", "float32[2,5]"),
    ]
    same = checkpoints.find_checkpoint(saved, 1)
    assert not checkpoints.arrays_diff(before, same, values=True).rows


def test_difference_of_values(saved, tmp_path):
    changed = state(w=jnp.arange(6.0).reshape(2, 3).at[1, 2].set(5.5))
    other = save(tmp_path / "other", changed)
    before, after = checkpoints.find_checkpoint(saved), checkpoints.find_checkpoint(other)
    assert not checkpoints.arrays_diff(before, after).rows
    assert list(checkpoints.arrays_diff(before, after, values=True).rows) == [
        ("mdl_vars.params.w", "float32[2,3]", "float32[2,3]", "0.5")
    ]


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([np.inf, 1.0], [np.inf, 3.0], 2.0),
        ([], [], 0.0),
    ],
)
def test_largest_difference(a, b, want):
    assert checkpoints._largest_difference(np.array(a), np.array(b)) == want

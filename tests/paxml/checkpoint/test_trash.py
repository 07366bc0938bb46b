"""Deleting checkpoints (trainer behaviour 91)."""

import jax
import jax.numpy as jnp

from paxml.checkpoint.manager import Checkpointer
from paxml.checkpoint.trash import TRASH_DIRECTORY
from paxml.train_states import TrainState


def saved(directory, steps, **options):
    checkpointer = Checkpointer(directory, save_interval_steps=1, max_to_keep=2, **options)
    for step in steps:
        checkpointer.save(step, TrainState(jnp.uint32(step), {"params": {"w": jnp.ones(3)}}, []))
    checkpointer.close()
    return sorted(path.name for path in directory.iterdir())


def test_a_deletion_that_was_cut_short_leaves_nothing_behind(tmp_path):
    """What a killed process had not deleted yet is no checkpoint any more, and goes next time."""
    half = tmp_path / TRASH_DIRECTORY / "checkpoint_00000001" / "state"
    half.mkdir(parents=True)
    (half / "0").write_text("")
    reader = Checkpointer(tmp_path, save_interval_steps=1, max_to_keep=2, read_only=True)
    assert reader.all_steps() == []
    reader.close()
    assert half.exists()
    assert saved(tmp_path, range(5)) == ["checkpoint_00000003", "checkpoint_00000004"]


def test_no_checkpoint_is_ever_half_gone_under_its_name(tmp_path, monkeypatch):
    """A deletion that never gets anywhere."""
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
    names = saved(tmp_path, range(4))
    assert names == [TRASH_DIRECTORY, "checkpoint_00000002", "checkpoint_00000003"]
    assert len(list((tmp_path / TRASH_DIRECTORY).iterdir())) == 2


def test_old_checkpoints_are_moved_where_one_asks(tmp_path):
    names = saved(tmp_path, range(4), todelete_subdir="old")
    assert names == ["checkpoint_00000002", "checkpoint_00000003", "old"]
    old = Checkpointer(tmp_path / "old", save_interval_steps=1, max_to_keep=None, read_only=True)
    state = TrainState(jnp.uint32(0), {"params": {"w": jnp.ones(3)}}, [])
    assert int(old.restore(1, jax.eval_shape(lambda: state)).step) == 1
    old.close()

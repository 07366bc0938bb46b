"""Checkpoints on disk: layout, exact round trips, faults (trainer behaviours 26-37, 85-95)."""

import gc
import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from paxml.checkpoint.compare import CheckpointMismatchError
from paxml.checkpoint.manager import Checkpointer, CheckpointSaveError
from paxml.checkpoint.steps import UnreadableCheckpointError
from paxml.train_states import TrainState

REPLICATED = P()

# When a read or a write fails, Orbax leaves tasks behind in an event loop that is closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def collect():
    """Collects them here, not during another test."""
    yield
    gc.collect()


class Moments(struct.PyTreeNode):
    count: Any
    m: Any


def mesh(*sizes):
    return jax.make_mesh(sizes, ("data", "mdl"), devices=jax.devices()[: np.prod(sizes)])


def make_state(step=0, *, on=None, dims=(6, 2)):
    on = on or mesh(2, 2)
    rng = np.random.default_rng(step)

    def put(shape, dtype=jnp.float32, spec=REPLICATED):
        return jax.device_put(rng.standard_normal(shape).astype(dtype), NamedSharding(on, spec))

    variables = {
        "params": {"lin": {"w": put(dims, spec=P("data", "mdl")), "b": put(dims[1:], "bfloat16")}},
        "non_trainable": {"mean": jnp.zeros([5]), "unused": jnp.zeros([0, 3])},
    }
    masked = {"params": {"lin": {"w": put(dims), "b": optax.MaskedNode()}}}
    return TrainState(jnp.uint32(step), variables, [(Moments(jnp.int32(step), masked),)])


def abstract(state, on=None):
    def shape(leaf):
        sharding = leaf.sharding
        if on is not None and isinstance(sharding, NamedSharding):
            sharding = NamedSharding(on, sharding.spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, state)


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def open_in(tmp_path, **options):
    fields = {"save_interval_steps": 4, "max_to_keep": None} | options
    return Checkpointer(tmp_path / "checkpoints", **fields)


def written(tmp_path, steps=(0, 4)):
    """Writes checkpoints and returns the states by step."""
    states = {step: make_state(step) for step in steps}
    checkpointer = open_in(tmp_path)
    for step, state in states.items():
        assert checkpointer.save(step, state, input_state=b"%d" % step, force=True)
    checkpointer.close()
    return states


def directory(tmp_path, step):
    return tmp_path / "checkpoints" / f"checkpoint_{step:08d}"


def test_layout_is_that_of_published_checkpoints(tmp_path):
    """9.2 and behaviours 85, 86: names of directories, items, leaves; no masked leaves."""
    written(tmp_path, [10])
    step_dir = directory(tmp_path, 10)
    assert {p.name for p in step_dir.iterdir() if p.is_dir()} == {
        "metadata",
        "state",
        "train_input",
    }
    assert (step_dir / "train_input" / "process_0-of-1").read_bytes() == b"10"
    leaves = {p.parent.name for p in (step_dir / "state").glob("*/.zarray")}
    assert leaves == {
        "step",
        "mdl_vars.params.lin.w",
        "mdl_vars.params.lin.b",
        "mdl_vars.non_trainable.mean",
        "opt_states_0_0.count",
        "opt_states_0_0.m.params.lin.w",
    }
    chunks = {p.name for p in (step_dir / "state" / "mdl_vars.params.lin.w").iterdir()}
    assert chunks == {".zarray", "0.0", "0.1", "1.0", "1.1"}


def test_metadata_describes_the_variables(tmp_path):
    """Behaviour 87: format 1.1."""
    written(tmp_path, [0])
    saved = json.loads((directory(tmp_path, 0) / "metadata" / "metadata").read_text())
    assert saved["version"] == 1.1
    assert saved["train_state_metadata"]["mdl_vars"]["params"]["lin"]["w"] == {
        "_array_metadata_tag": True,
        "dtype": "float32",
        "is_optax_masked_node": False,
        "unpadded_shape": [6, 2],
    }


def test_restores_bit_for_bit_with_shardings(tmp_path):
    states = written(tmp_path)
    checkpointer = open_in(tmp_path)
    assert checkpointer.latest_step() == 4
    for step, state in states.items():
        restored = checkpointer.restore(step, abstract(state))
        assert_same(restored, state)
        assert isinstance(restored, TrainState)
        sharding = restored.mdl_vars["params"]["lin"]["w"].sharding
        assert sharding == NamedSharding(mesh(2, 2), P("data", "mdl"))
    assert checkpointer.restore_input_state(4) == b"4"
    checkpointer.close()


@pytest.mark.parametrize("sizes", [(1, 2), (1, 1), (3, 2)])
def test_restores_on_another_mesh(tmp_path, sizes):
    """Behaviours 27 and 28."""
    states = written(tmp_path)
    checkpointer = open_in(tmp_path)
    restored = checkpointer.restore(4, abstract(states[4], mesh(*sizes)))
    assert_same(restored, states[4])
    assert restored.mdl_vars["params"]["lin"]["w"].sharding.mesh.devices.shape == sizes
    checkpointer.close()


def test_save_in_the_background_holds_the_state_of_its_step(tmp_path):
    """Behaviour 26: the next step may donate, i.e. overwrite, the buffers at once."""
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = {"w": jnp.arange(300_000.0), "n": jnp.zeros([100_000], jnp.int32)}
    checkpointer = open_in(tmp_path, save_interval_steps=1)
    for step in range(4):
        checkpointer.save(step, TrainState(jnp.uint32(step), {"params": state}, []))
        state = update(state)
    checkpointer.wait()
    for step in range(4):
        shapes = TrainState(jnp.uint32(0), {"params": abstract(state)}, [])
        got = checkpointer.restore(step, shapes).mdl_vars["params"]
        np.testing.assert_array_equal(got["w"], np.arange(300_000.0) + step)
        np.testing.assert_array_equal(got["n"], step)
    checkpointer.close()


def test_cadence_is_the_absolute_step(tmp_path):
    """Behaviours 1, 2, 32: the first, multiples of the interval, forced ones; never twice."""
    checkpointer = open_in(tmp_path)
    state = make_state()
    saved = [step for step in range(3, 11) if checkpointer.save(step, state)]
    assert checkpointer.save(11, state, force=True)
    assert not checkpointer.save(11, state, force=True)
    saved += [step for step in range(12, 17) if checkpointer.save(step, state)]
    assert saved == [3, 4, 8, 12, 16]
    checkpointer.close()
    again = open_in(tmp_path)
    assert again.all_steps() == [3, 4, 8, 11, 12, 16]
    assert not again.should_save(16)
    assert again.should_save(20)
    again.close()


@pytest.mark.parametrize("async_save", [True, False])
def test_keeps_the_newest(tmp_path, async_save):
    checkpointer = open_in(tmp_path, max_to_keep=2, async_save=async_save)
    for step in (0, 4, 8, 12):
        checkpointer.save(step, make_state(step))
    checkpointer.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint_00000008",
        "checkpoint_00000012",
    ]


def test_unfinished_saves_are_removed_at_opening(tmp_path):
    """Behaviour 34."""
    written(tmp_path)
    left = directory(tmp_path, 8).with_name("checkpoint_00000008.orbax-checkpoint-tmp")
    (left / "state").mkdir(parents=True)
    reader = open_in(tmp_path, read_only=True)
    assert left.exists()
    assert reader.latest_step() == 4
    reader.close()
    checkpointer = open_in(tmp_path)
    assert checkpointer.latest_step() == 4
    checkpointer.save(8, make_state(8))
    checkpointer.close()
    assert not left.exists()
    assert directory(tmp_path, 8).exists()


def make_empty(step_dir):
    shutil.rmtree(step_dir)
    step_dir.mkdir()


def remove_chunk(step_dir):
    (step_dir / "state" / "mdl_vars.params.lin.w" / "1.0").unlink()


def empty_chunk(step_dir):
    (step_dir / "state" / "mdl_vars.params.lin.w" / "1.0").write_bytes(b"")


BROKEN = {
    "empty": (make_empty, "the directory is empty"),
    "no state": (lambda d: shutil.rmtree(d / "state"), "it has no state directory"),
    "no metadata": (lambda d: shutil.rmtree(d / "metadata"), "it has no metadata/metadata file"),
    "metadata cut off": (
        lambda d: (d / "metadata" / "metadata").write_text('{"version": 1.1, "tr'),
        "metadata/metadata is not the metadata of a checkpoint",
    ),
    "no leaf": (
        lambda d: shutil.rmtree(d / "state" / "mdl_vars.params.lin.w"),
        "state/mdl_vars.params.lin.w has no .zarray file",
    ),
    "no chunk": (remove_chunk, "mdl_vars.params.lin.w/1.0 is missing"),
    "empty chunk": (empty_chunk, "mdl_vars.params.lin.w/1.0 is empty"),
}


@pytest.mark.parametrize(("damage", "problem"), BROKEN.values(), ids=BROKEN)
def test_incomplete_checkpoint_is_skipped_and_nothing_deleted(tmp_path, damage, problem):
    """Behaviours 35 and 36: the run goes on from the previous one, and says so."""
    states = written(tmp_path, [0, 4, 8])
    damage(directory(tmp_path, 8))
    checkpointer = open_in(tmp_path)
    text = rf"checkpoint_00000008 is skipped: .*{problem}.*; using step 4\. Nothing was deleted"
    with pytest.warns(UserWarning, match=text):
        assert checkpointer.latest_step() == 4
    assert checkpointer.latest_step() == 4  # without a second warning
    with pytest.raises(UnreadableCheckpointError, match=problem):
        checkpointer.restore(8, abstract(states[8]))
    assert directory(tmp_path, 8).exists()
    assert_same(checkpointer.restore(4, abstract(states[4])), states[4])
    # Training comes to step 8 again.
    assert not checkpointer.should_save(7)
    assert checkpointer.save(8, states[8])
    checkpointer.close()
    assert directory(tmp_path, 8).with_name("checkpoint_00000008.unreadable").exists()
    again = open_in(tmp_path)
    assert again.latest_step() == 8
    assert_same(again.restore(8, abstract(states[8])), states[8])
    again.close()


def cut_off(tmp_path, step):
    chunk = directory(tmp_path, step) / "state" / "mdl_vars.params.lin.w" / "1.0"
    chunk.write_bytes(chunk.read_bytes()[:9])


def without_checksums(tmp_path, step):
    """Makes a checkpoint look like one of another version."""
    for path in directory(tmp_path, step).glob("*/checksums.json"):
        path.unlink()


@pytest.mark.usefixtures("collect")
def test_array_with_other_bytes_is_an_error(tmp_path):
    states = written(tmp_path)
    without_checksums(tmp_path, 4)
    (directory(tmp_path, 4) / "state" / "mdl_vars.params.lin.w" / "1.0").write_bytes(b"x" * 40)
    checkpointer = open_in(tmp_path)
    with pytest.raises(UnreadableCheckpointError, match="checkpoint_00000004 cannot be read"):
        checkpointer.restore(4, abstract(states[4]))
    checkpointer.close()


@pytest.mark.usefixtures("collect")
@pytest.mark.parametrize(
    ("checksums", "problem"),
    [(True, "has 9 bytes, 21 were written"), (False, '": Truncated')],
    ids=["by its size", "when it is read"],
)
def test_array_cut_off_in_the_middle_is_an_error_with_the_way_out(tmp_path, checksums, problem):
    states = written(tmp_path, [0, 4, 8])
    cut_off(tmp_path, 8)
    if not checksums:
        without_checksums(tmp_path, 8)
    checkpointer = open_in(tmp_path)
    assert checkpointer.latest_step() == 8
    text = (
        r"(?s)Checkpoint .*checkpoint_00000008 cannot be read: .*mdl_vars\.params\.lin\.w/1\.0"
        rf".*{problem}.*"
        r"newest complete checkpoint is .*checkpoint_00000004\. To resume from there, run `rm -r "
        r".*checkpoint_00000008`"
    )
    with pytest.raises(UnreadableCheckpointError, match=text):
        checkpointer.restore(8, abstract(states[8]))
    checkpointer.close()


@pytest.mark.usefixtures("collect")
def test_restore_latest_falls_back_over_damaged_ones(tmp_path):
    states = written(tmp_path, [0, 4, 8])
    cut_off(tmp_path, 8)
    make_empty(directory(tmp_path, 4))
    checkpointer = open_in(tmp_path)
    with pytest.warns(UserWarning) as record:
        restored = checkpointer.restore_latest(abstract(states[0]))
    assert restored is not None
    assert restored[0] == 0
    assert_same(restored[1], states[0])
    texts = [str(warning.message) for warning in record]
    skipped = [text for text in texts if "checkpoint_00000008 is skipped" in text]
    assert len(skipped) == 1
    assert "using step 0" in skipped[0]
    checkpointer.close()


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_without_checksums_a_flipped_bit_is_a_wrong_number(tmp_path):
    """Why there are checksums: nothing else notices this one, which changes many weights."""
    weights = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(1000))}
    state = TrainState(jnp.uint32(4), {"params": weights}, [])
    checkpointer = open_in(tmp_path)
    checkpointer.save(4, state)
    checkpointer.wait()
    flip_bit(directory(tmp_path, 4) / "state" / "mdl_vars.params.w" / "0")
    without_checksums(tmp_path, 4)
    got = checkpointer.restore(4, abstract(state)).mdl_vars["params"]["w"]
    assert np.any(np.asarray(got) != np.asarray(weights["w"]))
    checkpointer.close()


@pytest.mark.parametrize(
    "file",
    [
        "state/mdl_vars.params.lin.w/1.0",
        "state/opt_states_0_0.m.params.lin.w/.zarray",
        "state/step/0",
        "state/checksums.json",
        "state/_METADATA",
        "metadata/metadata",
        "train_input/process_0-of-1",
    ],
)
def test_a_flipped_bit_is_noticed_in_every_kind_of_file(tmp_path, file):
    states = written(tmp_path)
    flip_bit(directory(tmp_path, 4) / file)
    checkpointer = open_in(tmp_path)
    with pytest.warns(UserWarning) as record:
        restored = checkpointer.restore_latest(abstract(states[0]))
    assert restored is not None
    assert restored[0] == 0
    assert_same(restored[1], states[0])
    skipped = [str(one.message) for one in record if "is skipped" in str(one.message)]
    assert len(skipped) == 1
    assert "checkpoint_00000004 is skipped: " in skipped[0]
    assert "using step 0" in skipped[0]
    assert file.rpartition("/")[0] in skipped[0]
    checkpointer.close()


def test_only_damaged_checkpoints(tmp_path):
    states = written(tmp_path, [0])
    make_empty(directory(tmp_path, 0))
    checkpointer = open_in(tmp_path)
    with pytest.warns(UserWarning, match="no older one is complete"):
        assert checkpointer.restore_latest(abstract(states[0])) is None
    with pytest.raises(UnreadableCheckpointError, match="There is no other complete checkpoint"):
        checkpointer.restore(0, abstract(states[0]))
    checkpointer.close()


def test_directory_without_checkpoints(tmp_path):
    checkpointer = open_in(tmp_path)
    assert checkpointer.latest_step() is None
    assert checkpointer.restore_latest(abstract(make_state())) is None
    with pytest.raises(ValueError, match="has no checkpoint of step 4"):
        checkpointer.restore(4, abstract(make_state()))
    checkpointer.close()


def test_arrays_padded_for_another_mesh_are_restored(tmp_path):
    """Behaviour 108: 5 rows are stored as 6 for one mesh, and as 8 for another."""

    def state(rows, dtype=jnp.float32):
        w = jnp.arange(2.0 * rows).reshape(rows, 2).at[5:].set(0).astype(dtype)
        return TrainState(jnp.uint32(4), {"params": {"w": w}}, [Moments(jnp.int32(4), {"w": w})])

    checkpointer = open_in(tmp_path)
    checkpointer.save(4, state(6), unpadded_shapes=jax.eval_shape(lambda: state(5)))
    checkpointer.wait()
    metadata = json.loads((directory(tmp_path, 4) / "metadata" / "metadata").read_text())
    described = metadata["train_state_metadata"]["mdl_vars"]["params"]["w"]
    assert described["unpadded_shape"] == [5, 2]
    for rows in (5, 6, 8):
        restored = checkpointer.restore(4, abstract(state(rows)), unpadded_shapes=state(5))
        assert_same(restored, state(rows))
    for wanted, unpadded in (
        (state(5), None),
        (state(4), state(4)),
        (state(6), state(6)),
        (state(8, jnp.bfloat16), state(5, jnp.bfloat16)),
    ):
        with pytest.raises(CheckpointMismatchError, match=r"mdl_vars\.params\.w"):
            checkpointer.restore(4, abstract(wanted), unpadded_shapes=unpadded)
    checkpointer.close()


def test_another_model_is_refused_with_a_list_by_path(tmp_path):
    """Behaviours 89 and 90: before any array is read."""
    written(tmp_path)
    other = make_state(4, dims=(4, 2))
    params = other.mdl_vars["params"]["lin"]
    params["b"] = params["b"].astype("float32")
    params["gain"] = jnp.ones([7])
    del other.mdl_vars["non_trainable"]["mean"]
    cut_off(tmp_path, 4)  # would be found by reading
    checkpointer = open_in(tmp_path)
    with pytest.raises(CheckpointMismatchError) as error:
        checkpointer.restore_latest(abstract(other))
    text = str(error.value)
    for line in (
        "checkpoint_00000004 does not fit the train state",
        "not in the checkpoint (1):\n    mdl_vars.params.lin.gain: float32[7]",
        "only in the checkpoint (1):\n    mdl_vars.non_trainable.mean: float32[5]",
        "mdl_vars.params.lin.w: saved float32[6,2], wanted float32[4,2]",
        "mdl_vars.params.lin.b: saved bfloat16[2], wanted float32[2]",
        "init_from_checkpoint_rules",
    ):
        assert line in text
    checkpointer.close()


def test_reads_checkpoints_without_the_tree_file(tmp_path):
    """Behaviour 88, in part: old versions did not write `_METADATA`."""
    states = written(tmp_path)
    without_checksums(tmp_path, 4)
    (directory(tmp_path, 4) / "state" / "_METADATA").unlink()
    checkpointer = open_in(tmp_path)
    assert checkpointer.latest_step() == 4
    assert_same(checkpointer.restore(4, abstract(states[4])), states[4])
    checkpointer.close()


def test_input_position_of_another_number_of_processes(tmp_path):
    """Behaviour 31: names both counts."""
    written(tmp_path)
    folder = directory(tmp_path, 4) / "train_input"
    (folder / "process_0-of-1").rename(folder / "process_0-of-2")
    checkpointer = open_in(tmp_path)
    with pytest.raises(FileNotFoundError, match="written by 2 processes, this run has 1"):
        checkpointer.restore_input_state(4)
    checkpointer.close()


def test_input_that_saves_itself_and_none_at_all(tmp_path):
    class Counter:
        def save(self, path):
            path.write_bytes(b"seven")

    checkpointer = open_in(tmp_path)
    checkpointer.save(0, make_state(), train_input=Counter())
    checkpointer.save(4, make_state(4))
    checkpointer.wait()
    assert checkpointer.restore_input_state(0) == b"seven"
    with pytest.warns(UserWarning, match="has no train_input: the input starts at its beginning"):
        assert checkpointer.restore_input_state(4) is None
    with pytest.raises(ValueError, match="train_input or input_state, not both"):
        checkpointer.save(8, make_state(), train_input=Counter(), input_state=b"")
    checkpointer.close()


@pytest.fixture
def small_files():
    """Lets no file grow past 4 KiB, as a full disk would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(on):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if on else soft, hard))

    yield limit
    limit(False)


@pytest.mark.parametrize("async_save", [True, False])
def test_full_disk_is_an_error_and_leaves_no_final_name(tmp_path, small_files, async_save):
    """Behaviour 37: at this save, or when the save in the background is waited for."""
    big = np.random.default_rng(0).standard_normal(50_000)
    state = TrainState(jnp.uint32(0), {"params": {"w": jnp.asarray(big)}}, [])
    checkpointer = open_in(tmp_path, async_save=async_save)
    checkpointer.save(0, state)
    checkpointer.wait()
    small_files(True)
    with pytest.raises(CheckpointSaveError) as error:
        checkpointer.save(4, state)
        checkpointer.wait()
    small_files(False)
    text = str(error.value)
    assert f"Saving step 4 under {tmp_path / 'checkpoints'} failed" in text
    assert "mdl_vars.params.w" in text
    assert "File too large" in text
    assert "Complete checkpoints: steps 0. Check free space" in text
    assert not directory(tmp_path, 4).exists()
    again = open_in(tmp_path)
    assert again.latest_step() == 0
    again.restore(0, abstract(state))
    again.close()

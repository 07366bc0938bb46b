"""Handlers, functions and managers by their old names (behaviours 85, 87, 89, 97)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from orbax import checkpoint as ocp

from paxml import checkpoint_creators, checkpoint_managers, checkpoints, tasks_lib, train
from paxml.checkpoint.manager import Checkpointer
from paxml.checkpoint.metadata import restore_metadata
from paxml.train_states import TrainState
from paxml.trainer.types import TrainStateMetadata
from praxis.utils.trees import BpropMaskedNode

FLAX, GDA = checkpoints.CheckpointType.FLAX, checkpoints.CheckpointType.GDA


def make_state(step, **changes):
    variables = {
        "w": jnp.arange(8.0).reshape(4, 2) * step,
        "half": jnp.full([3], step, jnp.bfloat16),
        "frozen": BpropMaskedNode(),
    } | changes
    variables = {name: value for name, value in variables.items() if value is not None}
    return TrainState(jnp.uint32(step), {"params": variables}, [({"count": jnp.int32(step)},)])


def equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)
    assert [x.dtype for x in jax.tree.leaves(tree)] == [x.dtype for x in jax.tree.leaves(other)]


def test_public_paths_hold_the_same_classes():
    assert checkpoint_creators.PaxCheckpointHandler is checkpoints.PaxCheckpointHandler
    assert train.PaxCheckpointHandler is checkpoints.PaxCheckpointHandler


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        (FLAX, "checkpoint_7", "checkpoint"),
        (GDA, "checkpoint_00000007", "mdl_vars.params.w"),
    ],
    ids=["flax", "gda"],
)
def test_a_state_is_saved_and_restored_in_either_layout(tmp_path, kind, name, file):
    for step in (3, 7):
        checkpoints.save_checkpoint(make_state(step), tmp_path, checkpoint_type=kind)
    assert (tmp_path / name / "state" / file).exists()
    metadata = restore_metadata(tmp_path / name)
    assert metadata.version == 1.1
    shape = metadata.train_state_metadata["mdl_vars"]["params"]["w"].unpadded_shape_dtype_struct
    assert shape.shape == (4, 2)
    shapes = jax.eval_shape(lambda: make_state(1))
    equal(checkpoints.restore_checkpoint(shapes, tmp_path, checkpoint_type=kind), make_state(7))
    equal(checkpoints.restore_checkpoint(shapes, tmp_path, step=3), make_state(3))

    with pytest.raises(ValueError, match=f"{name} exists. Set overwrite"):
        checkpoints.save_checkpoint(make_state(7), tmp_path, checkpoint_type=kind)
    other = make_state(7, half=jnp.zeros([3], jnp.bfloat16))
    checkpoints.save_checkpoint(other, tmp_path, overwrite=True, checkpoint_type=kind)
    equal(checkpoints.restore_checkpoint(shapes, tmp_path), other)


@pytest.mark.parametrize("kind", [FLAX, GDA], ids=["flax", "gda"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [({"w": jnp.zeros([5, 2])}, r"w.*4,"), ({"more": jnp.zeros([2])}, "")],
    ids=["shape", "missing"],
)
def test_a_state_that_does_not_fit_is_refused(tmp_path, kind, changes, message):
    checkpoints.save_checkpoint(make_state(1), tmp_path, checkpoint_type=kind)
    with pytest.raises(ValueError, match=f"(?s)checkpoint_.*{message}"):
        checkpoints.restore_checkpoint(make_state(1, **changes), tmp_path, checkpoint_type=kind)


def test_a_flax_file_of_another_structure_is_only_warned_about(tmp_path, caplog):
    checkpoints.save_checkpoint(make_state(1), tmp_path)
    renamed = make_state(1, w=None, z=jnp.zeros([4, 2]))
    restored = checkpoints.restore_checkpoint(renamed, tmp_path)
    np.testing.assert_array_equal(
        restored.mdl_vars["params"]["z"], make_state(1).mdl_vars["params"]["w"]
    )
    assert "another structure" in caplog.text


def test_restored_onto_a_mesh(tmp_path):
    checkpoints.save_checkpoint(make_state(2), tmp_path, checkpoint_type=GDA)
    mesh = Mesh(np.array(jax.devices()[:2]), ["x"])
    specs = jax.tree.map(lambda _: PartitionSpec(), make_state(2))
    specs.mdl_vars["params"]["w"] = PartitionSpec("x", None)
    state = checkpoints.restore_checkpoint(make_state(2), tmp_path, mesh, GDA, specs)
    equal(state, make_state(2))
    assert state.mdl_vars["params"]["w"].sharding.shard_shape((4, 2)) == (2, 2)
    with pytest.raises(ValueError, match="FLAX with a global_mesh"):
        checkpoints.restore_checkpoint(make_state(2), tmp_path, mesh, FLAX, specs)


@pytest.mark.parametrize(
    "handler", [checkpoints.PaxCheckpointHandler, checkpoints.FlaxCheckpointHandler]
)
@pytest.mark.parametrize("checkpointer", [ocp.Checkpointer, ocp.AsyncCheckpointer])
def test_handlers_work_in_checkpointers_of_orbax(tmp_path, handler, checkpointer):
    with checkpointer(handler()) as opened:
        opened.save(tmp_path / "it", make_state(3))
        if isinstance(opened, ocp.AsyncCheckpointer):
            opened.wait_until_finished()
        equal(
            opened.restore(tmp_path / "it", item=jax.eval_shape(lambda: make_state(1))),
            make_state(3),
        )
        with pytest.raises(ValueError, match="restore needs item"):
            opened.restore(tmp_path / "it")


class Position:
    """An input that saves itself."""

    def __init__(self, value=0):
        self.value = value

    def save(self, path):
        path.write_text(str(self.value))

    def restore(self, path):
        self.value = int(path.read_text())


def test_the_manager_saves_what_is_due_with_the_input(tmp_path):
    options = checkpoint_managers.CheckpointManagerOptions(
        max_to_keep=2, save_interval_steps=4, todelete_subdir="old"
    )
    checkpointer = ocp.AsyncCheckpointer(checkpoints.PaxCheckpointHandler())
    manager = checkpoint_managers.OrbaxCheckpointManager(
        tmp_path,
        checkpointer,
        train_input_checkpointer=ocp.Checkpointer(checkpoints.BaseInputCheckpointHandler()),
        options=options,
        checkpoint_type=GDA,
    )
    assert manager.latest_step() is None
    assert manager.version == 1.1
    for step in range(10):
        assert manager.should_save(step) == (step % 4 == 0)
        manager.save(step, make_state(step), train_input_pipeline=Position(step))
    manager.save(9, make_state(9), train_input_pipeline=Position(9), force=True)
    manager.check_for_errors()
    manager.wait_until_finished()
    assert not manager.reached_preemption(9)
    position = Position()
    shapes = jax.eval_shape(lambda: make_state(1))
    equal(manager.restore(8, shapes, train_input_pipeline=position), make_state(8))
    assert position.value == 8
    with pytest.raises(NotImplementedError, match="CheckpointLoadingRules"):
        manager.restore(8, shapes, restore_kwargs={"state": {"transforms": {"a": 1}}})
    manager.close()
    assert manager.all_steps() == [8, 9]
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == [
        "checkpoint_00000000",
        "checkpoint_00000004",
    ]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, ValueError, "checkpoint_type is .*UNSPECIFIED, expected"),
        ({"checkpoint_type": FLAX}, ValueError, "FLAX, expected"),
        (
            {"checkpoint_type": GDA, "aux_checkpointers": {"extra": 1}},
            ValueError,
            r"\['extra'\] are not available",
        ),
        ({"checkpoint_type": GDA, "tensorstore_use_ocdbt": True}, NotImplementedError, "OCDBT"),
    ],
    ids=["unspecified", "flax", "auxiliary", "ocdbt"],
)
def test_the_manager_refuses_what_it_cannot_do(tmp_path, fields, error, message):
    with pytest.raises(error, match=message):
        checkpoint_managers.OrbaxCheckpointManager(tmp_path, ocp.PyTreeCheckpointer(), **fields)


class StubPartitioner:
    """Says which shapes to restore, and makes the state of step 1."""

    def abstract_train_state(self):
        return jax.eval_shape(lambda: make_state(1))

    def initialize_prng_key_and_train_state(self, key, state, checkpoint_type):
        assert checkpoint_type == GDA
        return key, make_state(1) if state is None else state, None


def test_the_training_checkpointer_restores_the_newest_at_its_start(tmp_path):
    def open_run():
        inner = Checkpointer(tmp_path, save_interval_steps=4, max_to_keep=None)
        return checkpoints.TrainingCheckpointer(inner)

    metadata = TrainStateMetadata(None, None, unpadded_global_shapes=make_state(1))
    key = jax.random.PRNGKey(0)
    run = open_run()
    assert run.step_to_restore is None
    equal(run.get_model_states(StubPartitioner(), metadata, key, None).train_state, make_state(1))
    for step in range(6):
        run.save_if_needed(step, make_state(step), None, None, Position(step))
    for _ in range(2):  # the second has nothing to do
        run.save_final(
            5,
            partitioned_train_state=make_state(5),
            train_state_unpadded_shape_dtype_struct=None,
            train_state_pspecs=None,
            train_input_pipeline=Position(5),
        )
    run.wait_until_finished()
    assert not run.reached_preemption(5)
    run.close()
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["0", "4", "5"]

    run, position = open_run(), Position()
    assert run.step_to_restore == 5
    states = run.get_model_states(StubPartitioner(), metadata, key, position)
    equal(states.train_state, make_state(5))
    assert position.value == 5
    assert states.total_num_params == 8 + 3
    run.close()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda path: checkpoints.save_checkpoint((make_state(1), None), path),
            ValueError,
            "Got a tuple, expected a TrainState",
        ),
        (
            lambda path: checkpoints.restore_checkpoint(make_state(1), path / "none"),
            ValueError,
            "does not exist",
        ),
        (
            lambda path: checkpoints.restore_checkpoint(make_state(1), path),
            ValueError,
            "No checkpoints were found",
        ),
        (
            lambda path: checkpoints.restore_checkpoint(
                make_state(1), path, restore_transformations={"a": 1}
            ),
            NotImplementedError,
            "init_from_checkpoint_rules rename",
        ),
        (
            lambda path: checkpoints.save_checkpoint(
                make_state(1), path, checkpoint_type=GDA, tensorstore_use_ocdbt=True
            ),
            NotImplementedError,
            "tensorstore_use_ocdbt is True",
        ),
        (
            lambda path: checkpoints.get_checkpointer(checkpoints.CheckpointType.UNSPECIFIED),
            ValueError,
            "expected FLAX or GDA",
        ),
        (
            lambda path: checkpoints.reregister_type_handlers("key"),
            NotImplementedError,
            "'key' is not available",
        ),
        (
            lambda path: tasks_lib.restore_pmap_from_tensorstore(make_state(1), path),
            NotImplementedError,
            "Use restore_checkpoint with CheckpointType.GDA",
        ),
    ],
    ids=["tuple", "directory", "empty", "transforms", "ocdbt", "kind", "key", "pmap"],
)
def test_wrong_calls_say_what_to_do(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path)

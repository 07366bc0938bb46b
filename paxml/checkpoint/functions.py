"""Saving and restoring one train state, without a run around it."""

import os
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from orbax import checkpoint as ocp

from paxml.checkpoint.flax_file import FLAX_FILE, FlaxCheckpointHandler, flax_bytes, read_flax_file
from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.manager import Checkpointer
from paxml.checkpoint.metadata import make_metadata, save_metadata
from paxml.checkpoint.paths import (
    STATE_ITEM_NAME,
    PaxStepNameFormat,
    absolute_path,
    make_checkpoint_step_dir,
    retrieve_latest_checkpoint_step,
)
from paxml.checkpoint.pax_handler import (
    NO_OCDBT,
    NO_TRANSFORMATIONS,
    PaxCheckpointHandler,
    with_shardings,
)
from paxml.train_states import TrainState


def save_checkpoint(
    train_state: Any,
    checkpoint_dir: epath.PathLike,
    overwrite: bool = False,
    checkpoint_type: CheckpointType = CheckpointType.FLAX,
    state_specs: Any = None,
    async_checkpointer: Any = None,
    train_state_unpadded_shape_dtype_struct: Any = None,
    tensorstore_use_ocdbt: bool = False,
    async_options: Any = None,
) -> None:
    """Writes the checkpoint of the step that the state is at, and waits for it.

    Args:
      train_state: The `TrainState`.
      checkpoint_dir: Directory of the checkpoints.
      overwrite: Whether a checkpoint of this step is replaced; else it is an error.
      checkpoint_type: Layout: FLAX, one file, or GDA, sharded arrays.
      state_specs: Not needed.
      async_checkpointer: Has no effect.
      train_state_unpadded_shape_dtype_struct: Shapes before padding for a mesh.
      tensorstore_use_ocdbt: Not available.
      async_options: Has no effect.

    Raises:
      ValueError: if the state is no train state, if there is a checkpoint of this step, or for an
        unspecified type.
    """
    del state_specs, async_checkpointer, async_options
    _check(train_state, checkpoint_type, tensorstore_use_ocdbt)
    directory, step = absolute_path(checkpoint_dir), int(jax.device_get(train_state.step))
    directory.mkdir(parents=True, exist_ok=True)
    old = PaxStepNameFormat(checkpoint_type).find_metadata(directory, step)
    if old is not None:
        if not overwrite:
            raise ValueError(f"{old.path} exists. Set overwrite = True to replace it.")
        old.path.rmtree()
    if checkpoint_type == CheckpointType.FLAX:
        shapes = train_state_unpadded_shape_dtype_struct or jax.eval_shape(lambda x: x, train_state)
        _save_flax(make_checkpoint_step_dir(directory, step, checkpoint_type), train_state, shapes)
        return
    checkpointer = Checkpointer(
        directory, save_interval_steps=1, max_to_keep=None, async_save=False
    )
    checkpointer.save(
        step,
        train_state,
        unpadded_shapes=train_state_unpadded_shape_dtype_struct,
        force=True,
    )
    checkpointer.close()


def _save_flax(path: epath.Path, train_state: TrainState, unpadded_shapes: Any) -> None:
    """Writes a step directory under a temporary name, and renames it; the first process does."""
    if jax.process_index() != 0:
        return
    temporary = path.with_name(f"{path.name}.orbax-checkpoint-tmp")
    if temporary.exists():
        temporary.rmtree()
    (temporary / STATE_ITEM_NAME).mkdir(parents=True)
    (temporary / STATE_ITEM_NAME / FLAX_FILE).write_bytes(flax_bytes(train_state))
    save_metadata(
        temporary,
        make_metadata(
            train_state=train_state, train_state_unpadded_shape_dtype_struct=unpadded_shapes
        ),
    )
    temporary.rename(path)


def restore_checkpoint(
    state_global_shapes: Any,
    checkpoint_dir: epath.PathLike,
    global_mesh: Mesh | None = None,
    checkpoint_type: CheckpointType = CheckpointType.FLAX,
    state_specs: Any = None,
    step: int | None = None,
    enforce_restore_shape_check: bool = False,
    state_unpadded_shape_dtype_struct: Any = None,
    tensorstore_use_ocdbt: bool = False,
    restore_transformations: Any = None,
) -> TrainState:
    """Reads a checkpoint, of either layout.

    Args:
      state_global_shapes: The `TrainState` to fill, of arrays or shapes.
      checkpoint_dir: Directory of the checkpoints.
      global_mesh: The mesh that the arrays go to; None takes the shardings of the shapes, or the
        default device.
      checkpoint_type: Layout that is expected; the one found on disk is read.
      state_specs: A `PartitionSpec` for each array.
      step: Which checkpoint; None is the newest.
      enforce_restore_shape_check: Has no effect: arrays of other shapes are always refused.
      state_unpadded_shape_dtype_struct: Shapes before padding for the mesh.
      tensorstore_use_ocdbt: Not available.
      restore_transformations: Not available.

    Raises:
      ValueError: if the shapes are no train state, if there is no such checkpoint, if it does not
        fit, or for FLAX with a mesh.
    """
    del enforce_restore_shape_check
    _check(state_global_shapes, checkpoint_type, tensorstore_use_ocdbt)
    if restore_transformations:
        raise NotImplementedError(NO_TRANSFORMATIONS)
    if checkpoint_type == CheckpointType.FLAX and global_mesh is not None:
        raise ValueError(
            "checkpoint_type is FLAX with a global_mesh. A FLAX checkpoint is one file for one "
            "host; use CheckpointType.GDA for a model on a mesh."
        )
    if state_specs is not None and global_mesh is not None:
        state_global_shapes = with_shardings(state_global_shapes, state_specs, global_mesh)
    directory = absolute_path(checkpoint_dir)
    if step is None:
        step = retrieve_latest_checkpoint_step(directory)
    path = PaxStepNameFormat(checkpoint_type).find_step(directory, step).path
    for file in (path / STATE_ITEM_NAME / FLAX_FILE, path):
        if file.is_file():
            return read_flax_file(file, state_global_shapes)
    checkpointer = Checkpointer(
        directory, save_interval_steps=None, max_to_keep=None, read_only=True
    )
    try:
        return checkpointer.restore(
            step, state_global_shapes, unpadded_shapes=state_unpadded_shape_dtype_struct
        )
    finally:
        checkpointer.close()


def get_checkpointer(
    checkpoint_type: CheckpointType,
    async_checkpointer: Any = None,
    enforce_restore_shape_check: bool = False,
    tensorstore_use_ocdbt: bool = False,
) -> Any:
    """An Orbax checkpointer for train states.

    Args:
      checkpoint_type: Layout.
      async_checkpointer: Returned for GDA, if given.
      enforce_restore_shape_check: Has no effect.
      tensorstore_use_ocdbt: Not available.
    """
    if checkpoint_type == CheckpointType.FLAX:
        return ocp.Checkpointer(FlaxCheckpointHandler())
    if checkpoint_type == CheckpointType.GDA:
        handler = PaxCheckpointHandler(enforce_restore_shape_check, tensorstore_use_ocdbt)
        return async_checkpointer or ocp.Checkpointer(handler)
    raise ValueError(f"There is no checkpointer for {checkpoint_type}; expected FLAX or GDA.")


def reregister_type_handlers(tensorstore_metadata_key: str | None = None) -> None:
    """Nothing to do with the default key.

    Raises:
      NotImplementedError: for another key: the names of the files are the published ones.
    """
    if tensorstore_metadata_key is not None:
        raise NotImplementedError(
            f"tensorstore_metadata_key = {tensorstore_metadata_key!r} is not available; leave it "
            "None."
        )


def restore_pmap_from_tensorstore(
    global_shapes: TrainState,
    checkpoint_dir: epath.PathLike,
    step: int | None = None,
    global_mesh: Mesh | None = None,
    checkpoint_type: CheckpointType = CheckpointType.GDA,
    enforce_restore_shape_check: bool = False,
    tensorstore_use_ocdbt: bool = False,
    restore_transformations: Any = None,
) -> TrainState:
    """Refuses: there is no pmap mode.

    Raises:
      NotImplementedError: always, naming `restore_checkpoint`.
    """
    raise NotImplementedError(
        "restore_pmap_from_tensorstore: models without a mesh run in the same program as all "
        "others. Use restore_checkpoint with CheckpointType.GDA to read "
        f"{os.fspath(checkpoint_dir)}."
    )


def _check(state: Any, checkpoint_type: CheckpointType, use_ocdbt: bool) -> None:
    if not isinstance(state, TrainState):
        raise ValueError(
            f"Got a {type(state).__name__}, expected a TrainState. A tuple of (state, provenance) "
            "must be unpacked first."
        )
    if use_ocdbt:
        raise NotImplementedError(f"tensorstore_use_ocdbt is True. {NO_OCDBT}")
    if checkpoint_type not in (CheckpointType.FLAX, CheckpointType.GDA):
        raise ValueError(f"checkpoint_type is {checkpoint_type}, expected FLAX or GDA.")

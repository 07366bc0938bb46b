"""Orbax handlers of a train state, for code that uses Orbax's own checkpointers."""

import dataclasses
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh, NamedSharding
from orbax import checkpoint as ocp

from paxml.checkpoint import naming
from paxml.checkpoint.handlers import (
    StateHandler,
    StateRestore,
    StateSave,
    input_file_name,
    restore_args,
)

NO_OCDBT = "Arrays are written without OCDBT, in the layout of published checkpoints. Leave it off."
NO_TRANSFORMATIONS = (
    "Orbax transformations on restore are not available. CheckpointLoadingRules in "
    "train.init_from_checkpoint_rules rename, cast and load parts of a checkpoint."
)


class PaxCheckpointHandler(StateHandler):
    """Writes and reads a train state in the layout of published checkpoints: one Zarr an array.

    Example:
      checkpointer = orbax.checkpoint.Checkpointer(PaxCheckpointHandler())
      checkpointer.save(path, train_state)
      train_state = checkpointer.restore(path, item=shapes, specs=partition_specs, mesh=mesh)
    """

    def __init__(self, enforce_restore_shape_check: bool = False, use_ocdbt: bool = False) -> None:
        """Takes the old settings.

        Args:
          enforce_restore_shape_check: Has no effect: arrays of other shapes are always refused.
          use_ocdbt: Not available.

        Raises:
          NotImplementedError: with `use_ocdbt`.
        """
        del enforce_restore_shape_check
        if use_ocdbt:
            raise NotImplementedError(f"use_ocdbt is True. {NO_OCDBT}")
        super().__init__()

    def save(
        self, directory: epath.Path, item: Any = None, save_args: Any = None, args: Any = None
    ) -> None:
        """Writes a train state; masked leaves are skipped."""
        super().save(directory, args=_named(item, save_args, args))

    async def async_save(
        self, directory: Any, item: Any = None, save_args: Any = None, args: Any = None
    ) -> Any:
        """As `save`, after copying the arrays to the host; returns what to wait for."""
        return await super().async_save(directory, args=_named(item, save_args, args))

    def restore(  # pyright: ignore[reportIncompatibleMethodOverride]  # as old code calls it
        self,
        directory: epath.Path,
        item: Any = None,
        specs: Any = None,
        mesh: Mesh | None = None,
        transforms: Any = None,
        args: "PaxRestore | None" = None,
    ) -> Any:
        """Reads a train state.

        Args:
          directory: Where `save` wrote it.
          item: The tree to fill: arrays, or shapes and dtypes. Required.
          specs: A `PartitionSpec` for each leaf; None keeps the shardings of the leaves.
          mesh: For the specs.
          transforms: Not available.
          args: All of these, as Orbax passes them.

        Raises:
          ValueError: without `item`, or if an array has another shape.
          NotImplementedError: with transformations.
        """
        if args is not None:
            item, specs, mesh, transforms = args.item, args.specs, args.mesh, args.transforms
        if transforms is not None:
            raise NotImplementedError(NO_TRANSFORMATIONS)
        if item is None:
            raise ValueError(f"{type(self).__name__}.restore needs item, the state to fill.")
        if specs is not None and mesh is not None:
            item = with_shardings(item, specs, mesh)
        wanted = naming.named_leaves(item)
        restored = super().restore(
            directory,
            args=StateRestore(
                naming.nest(wanted),
                restore_args=naming.nest(
                    {name: restore_args(leaf, same_shape=True) for name, leaf in wanted.items()}
                ),
            ),
        )
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: naming.restored_leaf(restored, path, leaf), item
        )


@ocp.args.register_with_handler(PaxCheckpointHandler, for_save=True)
@dataclasses.dataclass
class PaxSave(ocp.args.CheckpointArgs):
    """Arguments of `PaxCheckpointHandler.save`."""

    item: Any
    save_args: Any = None


@ocp.args.register_with_handler(PaxCheckpointHandler, for_restore=True)
@dataclasses.dataclass
class PaxRestore(ocp.args.CheckpointArgs):
    """Arguments of `PaxCheckpointHandler.restore`."""

    item: Any = None
    specs: Any = None
    mesh: Mesh | None = None
    transforms: Any = None


class PaxCheckpointHandlerImpl(ocp.BasePyTreeCheckpointHandler):
    """Kept for old imports: Orbax's handler with settable names of leaves."""

    _param_names: Any = None

    def set_param_names(self, param_names: Any) -> None:
        """Sets the names of the leaves."""
        self._param_names = param_names

    def get_param_names(self, item: Any) -> Any:
        """The names that were set, else those of the layout."""
        if self._param_names is not None:
            return self._param_names
        return jax.tree_util.tree_map_with_path(lambda path, _: naming.leaf_name(path), item)


class BaseInputCheckpointHandler(ocp.CheckpointHandler):
    """Lets an input write and read its position, in a file for each process."""

    def save(self, directory: epath.Path, item: Any) -> None:
        """Calls `item.save(path)`."""
        item.save(epath.Path(directory) / input_file_name())

    def restore(self, directory: epath.Path, item: Any = None) -> None:
        """Calls `item.restore(path)`.

        Raises:
          ValueError: without `item`.
        """
        if item is None:
            raise ValueError(f"{type(self).__name__}.restore needs item, the input.")
        item.restore(epath.Path(directory) / input_file_name())


def with_shardings(shapes: Any, specs: Any, mesh: Mesh) -> Any:
    """Shapes and dtypes of a tree with a sharding for each leaf."""
    return jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)
        ),
        shapes,
        specs,
    )


def _named(item: Any, save_args: Any, args: Any) -> StateSave:
    if isinstance(args, StateSave):  # made here already, by `save`
        return args
    if args is not None:
        item, save_args = args.item, args.save_args
    return StateSave(naming.nest(naming.named_leaves(item)), save_args)

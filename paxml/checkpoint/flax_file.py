"""Checkpoints of one msgpack file: the layout of models without a mesh in older versions."""

import dataclasses
import os
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from orbax import checkpoint as ocp
from orbax.checkpoint import future

from paxml.checkpoint.compare import CheckpointMismatchError
from praxis.utils.trees import is_bprop_masked_node

FLAX_FILE = "checkpoint"
_LEAVES = "flattened_state"
_STRUCTURE = "str_pytree_state"


def flax_bytes(state: Any) -> bytes:
    """The leaves of a tree, in order, and its structure as text."""
    leaves, structure = jax.tree.flatten(state, is_leaf=is_bprop_masked_node)
    values = [{} if is_bprop_masked_node(leaf) else np.asarray(leaf) for leaf in leaves]
    return flax.serialization.to_bytes({_LEAVES: values, _STRUCTURE: str(structure)})


def read_flax_file(path: epath.Path, state: Any) -> Any:
    """Fills a tree with the leaves of a file, in order; masked leaves stay as they are.

    Raises:
      CheckpointMismatchError: if the number of leaves or a shape or dtype differs.
    """
    content = flax.serialization.msgpack_restore(path.read_bytes())
    saved = content[_LEAVES]
    if isinstance(saved, dict):  # how flax writes a list
        saved = [saved[str(index)] for index in range(len(saved))]
    wanted, structure = jax.tree.flatten(state, is_leaf=is_bprop_masked_node)
    paths = [
        jax.tree_util.keystr(key_path)
        for key_path, _ in jax.tree_util.tree_leaves_with_path(state, is_leaf=is_bprop_masked_node)
    ]
    if len(saved) != len(wanted):
        raise CheckpointMismatchError(
            f"{os.fspath(path)} holds {len(saved)} arrays, the train state has {len(wanted)}. Undo "
            "the change of the model or the optimizer."
        )
    if content[_STRUCTURE] != str(structure):
        logging.warning(
            "%s was written from a tree of another structure: %s, now %s. Leaves are taken in "
            "order.",
            *(os.fspath(path), content[_STRUCTURE], structure),
        )

    def take(name: str, value: Any, leaf: Any) -> Any:
        if is_bprop_masked_node(leaf):
            return leaf
        if tuple(np.shape(value)) != tuple(leaf.shape) or np.asarray(value).dtype != leaf.dtype:
            raise CheckpointMismatchError(
                f"{os.fspath(path)}: {name} is {np.asarray(value).dtype}{list(np.shape(value))}, "
                f"wanted {leaf.dtype}{list(leaf.shape)}."
            )
        sharding = getattr(leaf, "sharding", None)
        return jnp.asarray(value) if sharding is None else jax.device_put(value, sharding)

    return structure.unflatten(map(take, paths, saved, wanted))


class FlaxCheckpointHandler(ocp.PyTreeCheckpointHandler):
    """Writes and reads a tree as one msgpack file, `checkpoint`."""

    def __init__(self, use_ocdbt: bool = False) -> None:
        """Takes the old setting, which has no effect."""
        del use_ocdbt
        super().__init__(use_ocdbt=False)

    def save(
        self, directory: epath.Path, item: Any = None, save_args: Any = None, args: Any = None
    ) -> None:
        """Writes `item`; the first process does."""
        del save_args
        content = flax_bytes(item if args is None else args.item)
        if jax.process_index() == 0:
            (epath.Path(directory) / FLAX_FILE).write_bytes(content)

    async def async_save(
        self, directory: Any, item: Any = None, save_args: Any = None, args: Any = None
    ) -> Any:
        """As `save`, after copying the arrays to the host; returns what to wait for."""
        del save_args
        content = flax_bytes(item if args is None else args.item)

        async def write() -> None:
            if jax.process_index() == 0:
                (epath.Path(directory) / FLAX_FILE).write_bytes(content)

        # Orbax makes the directory in the background as well.
        return [future.CommitFutureAwaitingContractedSignals(write(), name="flax_file")]

    def restore(
        self,
        directory: epath.Path,
        item: Any = None,
        restore_args: Any = None,
        transforms: Any = None,
        transforms_default_to_original: bool = True,
        legacy_transform_fn: Any = None,
        args: Any = None,
    ) -> Any:
        """Fills `item`, a tree of arrays or of shapes; the other arguments have no effect.

        Raises:
          ValueError: without `item`.
        """
        del restore_args, transforms, transforms_default_to_original, legacy_transform_fn
        item = item if args is None else args.item
        if item is None:
            raise ValueError(f"{type(self).__name__}.restore needs item, the state to fill.")
        return read_flax_file(epath.Path(directory) / FLAX_FILE, item)

    def finalize(self, directory: epath.Path) -> None:
        """Nothing is left to do."""


@ocp.args.register_with_handler(FlaxCheckpointHandler, for_save=True)
@dataclasses.dataclass
class FlaxSave(ocp.args.CheckpointArgs):
    """Arguments of `FlaxCheckpointHandler.save`."""

    item: Any


@ocp.args.register_with_handler(FlaxCheckpointHandler, for_restore=True)
@dataclasses.dataclass
class FlaxRestore(ocp.args.CheckpointArgs):
    """Arguments of `FlaxCheckpointHandler.restore`."""

    item: Any = None


class FlaxCheckpointHandlerImpl(ocp.BasePyTreeCheckpointHandler):
    """Kept for old imports."""

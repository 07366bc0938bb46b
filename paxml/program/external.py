"""A first state from a checkpoint that the user's own handler reads."""

from collections.abc import Callable
from typing import Any, cast

import jax
from absl import logging

from paxml.partitioning.base import Partitioner
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState


def restore_external(task: SingleTask, partitioner: Partitioner) -> TrainState | None:
    """Reads `external_checkpoint_path`, if the task has one.

    Args:
      task: Names the path and the handler, and Orbax transformations for it.
      partitioner: A partitioner that is set up; says where the state goes.

    Returns:
      The state on the mesh, or None without a path.

    Raises:
      ValueError: without a handler, or if the state that it returns does not fit the task.
      TypeError: if it returns anything else.
    """
    train = task.train
    if train.external_checkpoint_path is None:
        return None
    handler = train.external_checkpoint_handler
    if handler is None:
        raise ValueError(
            f"Task {task.name!r}: train.external_checkpoint_path is "
            f"{str(train.external_checkpoint_path)!r}, but external_checkpoint_handler is None. "
            "Set it to a handler whose restore(path, item=, partitioner=, transformations=) "
            "returns a train state; for checkpoints of this trainer use "
            "init_from_checkpoint_rules instead."
        )
    # The two last arguments are no part of Orbax's interface.
    restore = cast(Callable[..., Any], handler.restore)
    state = restore(
        train.external_checkpoint_path,
        item=partitioner.get_train_state_metadata(),
        partitioner=partitioner,
        transformations=train.restore_transformations,
    )
    if not isinstance(state, TrainState):
        raise TypeError(
            f"Task {task.name!r}: {type(handler).__name__}.restore returned a "
            f"{type(state).__name__}, expected a TrainState."
        )
    logging.info("Restored from the external checkpoint %s.", train.external_checkpoint_path)
    return _placed(state, partitioner.abstract_train_state(), type(handler).__name__)


def _placed(state: TrainState, wanted: TrainState, handler: str) -> TrainState:
    """The state in the wanted shardings."""
    structure, expected = jax.tree.structure(state), jax.tree.structure(wanted)
    if structure != expected:
        raise ValueError(
            f"{handler}.restore returned a state of structure {structure}, expected {expected}."
        )

    def place(path: Any, leaf: Any, want: Any) -> jax.Array:
        if leaf.shape != want.shape or leaf.dtype != want.dtype:
            raise ValueError(
                f"{handler}.restore returned {jax.tree_util.keystr(path)} as "
                f"{leaf.dtype}{list(leaf.shape)}, expected {want.dtype}{list(want.shape)}."
            )
        return jax.device_put(leaf, want.sharding)

    return jax.tree_util.tree_map_with_path(place, state, wanted)

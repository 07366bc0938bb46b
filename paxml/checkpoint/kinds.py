"""Kinds of checkpoint, and which one a task gets."""

import enum
from typing import Any


# Not StrEnum: its str() would be the value, and configs print members by name.
class CheckpointType(str, enum.Enum):  # noqa: UP042
    """How the arrays of a train state are written.

    Members:
      UNSPECIFIED: nobody has chosen yet; a checkpoint manager refuses it.
      GDA: every process writes its shards of each array. For models on a mesh.
      FLAX: one process writes the whole state into one msgpack file. For models without a mesh.
      PERSISTENCE: not available in the open version.
    """

    UNSPECIFIED = "unspecified"
    FLAX = "flax"
    GDA = "gda"
    PERSISTENCE = "persistence"


def retrieve_checkpoint_type(
    maybe_use_persistence_checkpointing: bool, task: Any
) -> CheckpointType:
    """Returns the type of checkpoint for a task (config or instance): GDA iff its model has a mesh.

    Args:
      maybe_use_persistence_checkpointing: Asks for PERSISTENCE in place of GDA.
      task: Config or instance whose `model` has `ici_mesh_shape`.

    Raises:
      NotImplementedError: if PERSISTENCE is asked for.
    """
    if task.model.ici_mesh_shape is None:
        return CheckpointType.FLAX
    if maybe_use_persistence_checkpointing:
        raise NotImplementedError(
            "maybe_use_persistence_checkpointing is set, but persistence checkpoints do not exist "
            "outside Google. Leave the flag off to write GDA checkpoints."
        )
    return CheckpointType.GDA

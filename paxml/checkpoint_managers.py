"""The old interface of the checkpoints of a run, under its public path."""

from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.metadata import METADATA_ITEM_NAME
from paxml.checkpoint.orbax_manager import CheckpointManagerOptions, OrbaxCheckpointManager
from paxml.checkpoint.paths import INPUT_ITEM_NAME, STATE_ITEM_NAME
from paxml.train_states import TrainState

__all__ = [
    "INPUT_ITEM_NAME",
    "METADATA_ITEM_NAME",
    "STATE_ITEM_NAME",
    "CheckpointManagerOptions",
    "CheckpointType",
    "OrbaxCheckpointManager",
    "TrainState",
]

"""Checkpoints of train states, gathered under their public path."""

from paxml.checkpoint.flax_file import FlaxCheckpointHandler, FlaxCheckpointHandlerImpl
from paxml.checkpoint.functions import (
    get_checkpointer,
    reregister_type_handlers,
    restore_checkpoint,
    save_checkpoint,
)
from paxml.checkpoint.kinds import CheckpointType, retrieve_checkpoint_type
from paxml.checkpoint.paths import (
    CHECKPOINT_PREFIX,
    get_step_from_checkpoint_asset,
    is_checkpoint_asset,
    latest_checkpoint,
    latest_checkpoint_if_exists,
    make_checkpoint_step_dir,
    retrieve_latest_checkpoint_step,
    retrieve_latest_checkpoint_step_if_exists,
)
from paxml.checkpoint.pax_handler import (
    BaseInputCheckpointHandler,
    PaxCheckpointHandler,
    PaxCheckpointHandlerImpl,
)
from paxml.checkpoint.training import TrainingCheckpointer

__all__ = [
    "CHECKPOINT_PREFIX",
    "BaseInputCheckpointHandler",
    "CheckpointType",
    "FlaxCheckpointHandler",
    "FlaxCheckpointHandlerImpl",
    "PaxCheckpointHandler",
    "PaxCheckpointHandlerImpl",
    "TrainingCheckpointer",
    "get_checkpointer",
    "get_step_from_checkpoint_asset",
    "is_checkpoint_asset",
    "latest_checkpoint",
    "latest_checkpoint_if_exists",
    "make_checkpoint_step_dir",
    "reregister_type_handlers",
    "restore_checkpoint",
    "retrieve_checkpoint_type",
    "retrieve_latest_checkpoint_step",
    "retrieve_latest_checkpoint_step_if_exists",
    "save_checkpoint",
]

"""Tasks, under their public path."""

from paxml.checkpoint.kinds import CheckpointType
from paxml.task.base import BaseTask
from paxml.task.exclusion import (
    filter_vars_for_grad_or_opt,
    get_excluded_var_mask_for_grad,
    get_excluded_var_mask_for_grad_or_opt,
    get_excluded_var_mask_for_opt,
    has_ema,
)
from paxml.task.settings import (
    DECODE_DEFAULT_MUTABLE_LIST,
    EVAL_DEFAULT_MUTABLE_LIST,
    TRAIN_DEFAULT_MUTABLE_LIST,
)
from paxml.task.single_task import SingleTask
from paxml.task.state import (
    NO_PREFIX_KEY,
    create_state,
    create_state_padded_shapes,
    create_state_partition_specs,
    create_state_unpadded_shapes,
    is_vectorized,
)
from paxml.train_states import TensorProvenance, TrainState, TrainStateProvenance

__all__ = [
    "DECODE_DEFAULT_MUTABLE_LIST",
    "EVAL_DEFAULT_MUTABLE_LIST",
    "NO_PREFIX_KEY",
    "TRAIN_DEFAULT_MUTABLE_LIST",
    "BaseTask",
    "CheckpointType",
    "SingleTask",
    "TensorProvenance",
    "TrainState",
    "TrainStateProvenance",
    "create_state",
    "create_state_padded_shapes",
    "create_state_partition_specs",
    "create_state_unpadded_shapes",
    "filter_vars_for_grad_or_opt",
    "get_excluded_var_mask_for_grad",
    "get_excluded_var_mask_for_grad_or_opt",
    "get_excluded_var_mask_for_opt",
    "has_ema",
    "is_vectorized",
]

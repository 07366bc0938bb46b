"""Tasks, under their public path."""

from paxml.checkpoint.functions import restore_pmap_from_tensorstore
from paxml.checkpoint.kinds import CheckpointType
from paxml.evaljob.runner import BaseInferenceRunner
from paxml.task.base import BaseTask
from paxml.task.ema import extract_ema
from paxml.task.exclusion import (
    filter_vars_for_grad_or_opt,
    get_excluded_var_mask_for_grad,
    get_excluded_var_mask_for_grad_or_opt,
    get_excluded_var_mask_for_opt,
    has_ema,
)
from paxml.task.rules import (
    LOAD_ALL,
    CheckpointLoadingRules,
    get_optax_opt_load_rules,
    get_praxis_opt_state_regex,
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
    "LOAD_ALL",
    "NO_PREFIX_KEY",
    "TRAIN_DEFAULT_MUTABLE_LIST",
    "BaseInferenceRunner",
    "BaseTask",
    "CheckpointLoadingRules",
    "CheckpointType",
    "SingleTask",
    "TensorProvenance",
    "TrainState",
    "TrainStateProvenance",
    "create_state",
    "create_state_padded_shapes",
    "create_state_partition_specs",
    "create_state_unpadded_shapes",
    "extract_ema",
    "filter_vars_for_grad_or_opt",
    "get_excluded_var_mask_for_grad",
    "get_excluded_var_mask_for_grad_or_opt",
    "get_excluded_var_mask_for_opt",
    "get_optax_opt_load_rules",
    "get_praxis_opt_state_regex",
    "has_ema",
    "is_vectorized",
    "restore_pmap_from_tensorstore",
]

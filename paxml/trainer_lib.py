"""Steps, initial states and their specs, under their public path."""

from paxml.checkpoint.kinds import CheckpointType
from paxml.task.exclusion import get_excluded_var_masks
from paxml.train_states import TensorProvenance, TrainState, TrainStateProvenance
from paxml.trainer.eval_step import decode_step, eval_step_single_learner
from paxml.trainer.files import write_post_init_model_hparams_file, write_train_provenance_file
from paxml.trainer.init import (
    create_train_state_metadata,
    get_train_input_specs_for_model_init,
    initialize_model_state,
    initialize_partitioned_model_states,
)
from paxml.trainer.inputs import (
    adjust_input_params_for_small_batch,
    check_unique_names,
    get_input_partition_specs,
    get_inputs_shape_dtype,
    reshard_input_based_on_rank_fn,
    shard_on_batch_dim_partition_spec,
)
from paxml.trainer.replicate import (
    bind_mesh,
    initialize_replicate_model_state,
    replicate_model_state,
)
from paxml.trainer.train_step import train_step_single_learner
from paxml.trainer.types import (
    ApplyFnProtocol,
    BaseStepFnStaticArgs,
    GradFnProtocol,
    LossFnProtocol,
    RunningMode,
    StepFnOutput,
    TrainStateMetadata,
)
from praxis.base_layer import (
    AUX_LOSS,
    DECODE_CACHE,
    NON_PAX_RNG_KEY,
    NON_PAX_VAR_COLLECTION,
    NON_TRAINABLE,
    PARAMS,
    PMAP_PARALLEL_AXIS_NAME,
    RANDOM,
    SUMMARIES,
)

__all__ = [
    "AUX_LOSS",
    "DECODE_CACHE",
    "NON_PAX_RNG_KEY",
    "NON_PAX_VAR_COLLECTION",
    "NON_TRAINABLE",
    "PARAMS",
    "PMAP_PARALLEL_AXIS_NAME",
    "RANDOM",
    "SUMMARIES",
    "ApplyFnProtocol",
    "BaseStepFnStaticArgs",
    "CheckpointType",
    "GradFnProtocol",
    "LossFnProtocol",
    "RunningMode",
    "StepFnOutput",
    "TensorProvenance",
    "TrainState",
    "TrainStateMetadata",
    "TrainStateProvenance",
    "adjust_input_params_for_small_batch",
    "bind_mesh",
    "check_unique_names",
    "create_train_state_metadata",
    "decode_step",
    "eval_step_single_learner",
    "get_excluded_var_masks",
    "get_input_partition_specs",
    "get_inputs_shape_dtype",
    "get_train_input_specs_for_model_init",
    "initialize_model_state",
    "initialize_partitioned_model_states",
    "initialize_replicate_model_state",
    "replicate_model_state",
    "reshard_input_based_on_rank_fn",
    "shard_on_batch_dim_partition_spec",
    "train_step_single_learner",
    "write_post_init_model_hparams_file",
    "write_train_provenance_file",
]

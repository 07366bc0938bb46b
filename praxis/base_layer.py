"""The foundation of layers: BaseLayer, variables, initialisers, contexts, sharding, summaries."""

from collections.abc import Callable
from typing import Any

from praxis.base_hyperparams import instantiate, sub_config_field
from praxis.core.boxed import (
    BoxedParam,
    BoxedPartitionSpec,
    WrappedHParams,
    maybe_unbox_value,
    unbox_meta,
)
from praxis.core.children import (
    compatible_hparams,
    get_template_fields,
    instantiate_layer,
    is_sublayer_template_or_instance,
)
from praxis.core.context import JaxContext, cur_jax_context
from praxis.core.inherit import copy_base_hparams
from praxis.core.initializers import (
    get_fan_in_fan_out,
    init_var,
    register_init_method,
    scaled_delta_orthogonal,
    scaled_orthogonal,
    var_init_scale,
)
from praxis.core.layer import BaseLayer
from praxis.core.names import (
    AUX_LOSS,
    DECODE_CACHE,
    DEFAULT_INIT_MUTABLE_LIST,
    HYPER_PARAMS,
    INTERMEDIATES,
    NON_PAX_RNG_KEY,
    NON_PAX_VAR_COLLECTION,
    NON_TRAINABLE,
    PARAMS,
    PMAP_PARALLEL_AXIS_NAME,
    PREFIX_DECODE_CACHE,
    QUANTIZED_SCALE_NAME_POSTFIX,
    QUANTIZED_ZP_NAME_POSTFIX,
    RANDOM,
    SPARSITY_NAME_POSTFIX,
    SUMMARIES,
)
from praxis.core.sharding import (
    is_running_under_pmap,
    maybe_shard,
    maybe_transpose_mesh_axes,
    to_partition_spec,
    transpose_one_axis,
    var_partition_specs,
)
from praxis.core.summaries import (
    AuxLossStruct,
    SummaryType,
    add_global_summary,
    all_global_summaries,
    clear_global_summary,
    get_summary_base_type,
    get_summary_type_from_key,
    get_summary_type_suffix,
    trim_summary_type_from_key,
)
from praxis.core.theta import Theta, ThetaDescriptor
from praxis.core.weights import (
    SplitDimsMapping,
    WeightHParams,
    WeightHParamsCollection,
    WeightInit,
    assert_has_shape,
    default_param_init,
    is_default_param_init,
    var_disallow_bfloat16_conversion,
    var_not_trainable,
    var_overwrite_with_gradient,
    var_requires_mean_sync,
    var_requires_sum_sync,
    var_skip_lp_regularization,
)
from praxis.pax_fiddle import instance_field, template_field

BaseLayerApi = BaseLayer

# (state, batch_dim, time_dim) -> state; a dim of -1 does not exist and is left alone.
DecodeStateTransformFn = Callable[[Any, int, int], Any]

__all__ = [
    "AUX_LOSS",
    "DECODE_CACHE",
    "DEFAULT_INIT_MUTABLE_LIST",
    "HYPER_PARAMS",
    "INTERMEDIATES",
    "NON_PAX_RNG_KEY",
    "NON_PAX_VAR_COLLECTION",
    "NON_TRAINABLE",
    "PARAMS",
    "PMAP_PARALLEL_AXIS_NAME",
    "PREFIX_DECODE_CACHE",
    "QUANTIZED_SCALE_NAME_POSTFIX",
    "QUANTIZED_ZP_NAME_POSTFIX",
    "RANDOM",
    "SPARSITY_NAME_POSTFIX",
    "SUMMARIES",
    "AuxLossStruct",
    "BaseLayer",
    "BaseLayerApi",
    "BoxedParam",
    "BoxedPartitionSpec",
    "DecodeStateTransformFn",
    "JaxContext",
    "SplitDimsMapping",
    "SummaryType",
    "Theta",
    "ThetaDescriptor",
    "WeightHParams",
    "WeightHParamsCollection",
    "WeightInit",
    "WrappedHParams",
    "add_global_summary",
    "all_global_summaries",
    "assert_has_shape",
    "clear_global_summary",
    "compatible_hparams",
    "copy_base_hparams",
    "cur_jax_context",
    "default_param_init",
    "get_fan_in_fan_out",
    "get_summary_base_type",
    "get_summary_type_from_key",
    "get_summary_type_suffix",
    "get_template_fields",
    "init_var",
    "instance_field",
    "instantiate",
    "instantiate_layer",
    "is_default_param_init",
    "is_running_under_pmap",
    "is_sublayer_template_or_instance",
    "maybe_shard",
    "maybe_transpose_mesh_axes",
    "maybe_unbox_value",
    "register_init_method",
    "scaled_delta_orthogonal",
    "scaled_orthogonal",
    "sub_config_field",
    "template_field",
    "to_partition_spec",
    "transpose_one_axis",
    "trim_summary_type_from_key",
    "unbox_meta",
    "var_disallow_bfloat16_conversion",
    "var_init_scale",
    "var_not_trainable",
    "var_overwrite_with_gradient",
    "var_partition_specs",
    "var_requires_mean_sync",
    "var_requires_sum_sync",
    "var_skip_lp_regularization",
]

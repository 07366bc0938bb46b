"""Rematerialization: which values of the forward pass are kept for the backward pass."""

import enum
from collections.abc import Callable

import jax


# Not StrEnum: the text of a config shows a member through `str`, as `AutodiffCheckpointType.X`.
class AutodiffCheckpointType(str, enum.Enum):  # noqa: UP042
    """What a rematerialized layer keeps; it computes everything else again.

    The members that save values by name save those that layers mark with
    `jax.ad_checkpoint.checkpoint_name`.
    """

    SAVE_NOTHING = "save_nothing"
    SAVE_EVERYTHING = "save_everything"
    SAVE_DOT_ONLY = "save_dot_only"
    SAVE_DOT_WITH_NO_BATCH_DIM = "save_dot_with_no_batch_dims"
    SAVE_QKV_OUT_PROJ = "save_qkv_out_proj"
    SAVE_QKV_OUT_PROJ_SEPARATE = "save_qkv_out_proj_separate"
    SAVE_CONTEXT = "save_context"
    SAVE_OUT_PROJ = "save_out_proj"
    SAVE_CONTEXT_AND_OUT_PROJ = "save_encoded_and_out_proj"
    SAVE_DOT_FOR_MLPERF_200B = "save_dot_for_mlperf_200b"
    SAVE_QUANTIZED = "save_quantized"
    SAVE_ITERATION_INPUT = "save_iteration_input"
    SAVE_TRANSFORMER_LAYER_OUTPUT = "save_transformer_layer_output"
    SAVE_DOT_EXCEPT_LOGITS = "save_dot_except_logits"
    SAVE_DOT_EXCEPT_LOGITS_FFN1 = "save_dot_except_logits_ffn1"
    SAVE_UNET_CONV = "save_unet_conv"
    SAVE_UNET_ALL_CONV = "save_unet_all_conv"


_QKV_SEPARATE = ("query_proj", "key_proj", "value_proj")
_ATTENTION = ("combined_qkv_proj", *_QKV_SEPARATE, "context", "out_proj")

SAVED_NAMES = {
    AutodiffCheckpointType.SAVE_QKV_OUT_PROJ: ("combined_qkv_proj", "out_proj"),
    AutodiffCheckpointType.SAVE_QKV_OUT_PROJ_SEPARATE: (*_QKV_SEPARATE, "out_proj"),
    AutodiffCheckpointType.SAVE_CONTEXT: ("context",),
    AutodiffCheckpointType.SAVE_OUT_PROJ: ("out_proj",),
    AutodiffCheckpointType.SAVE_CONTEXT_AND_OUT_PROJ: ("context", "out_proj"),
    AutodiffCheckpointType.SAVE_DOT_FOR_MLPERF_200B: _ATTENTION,
    AutodiffCheckpointType.SAVE_QUANTIZED: (
        "context",
        "out_proj",
        "combined_qkv_proj",
        "qlhs",
        "qrhs",
        "lhs_scale",
        "rhs_scale",
    ),
    AutodiffCheckpointType.SAVE_ITERATION_INPUT: ("iteration_input",),
    AutodiffCheckpointType.SAVE_TRANSFORMER_LAYER_OUTPUT: ("transformer_layer_out",),
    AutodiffCheckpointType.SAVE_DOT_EXCEPT_LOGITS: (*_ATTENTION, "ffn1", "ffn1_gate", "ffn2"),
    AutodiffCheckpointType.SAVE_DOT_EXCEPT_LOGITS_FFN1: (*_ATTENTION, "ffn2"),
    AutodiffCheckpointType.SAVE_UNET_CONV: ("conv_out",),
    AutodiffCheckpointType.SAVE_UNET_ALL_CONV: ("conv_0", "conv_1", "conv_out"),
}
"""Names of the values that each policy by name keeps; the names are part of the public API."""

_BY_OPERATION = {
    AutodiffCheckpointType.SAVE_NOTHING: jax.checkpoint_policies.nothing_saveable,
    AutodiffCheckpointType.SAVE_EVERYTHING: jax.checkpoint_policies.everything_saveable,
    AutodiffCheckpointType.SAVE_DOT_ONLY: jax.checkpoint_policies.checkpoint_dots,
    AutodiffCheckpointType.SAVE_DOT_WITH_NO_BATCH_DIM: (
        jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims
    ),
}


def custom_policy(checkpoint_policy: AutodiffCheckpointType | str) -> Callable[..., bool]:
    """Turns the name of a policy into a policy for `jax.checkpoint` or `nn.remat`.

    Args:
      checkpoint_policy: A member of `AutodiffCheckpointType`, or its value.

    Raises:
      ValueError: if it is neither.
    """
    try:
        policy = AutodiffCheckpointType(checkpoint_policy)
    except ValueError:
        values = [member.value for member in AutodiffCheckpointType]
        raise ValueError(
            f"checkpoint_policy is {checkpoint_policy!r}, expected a member of "
            f"AutodiffCheckpointType or one of {values}."
        ) from None
    if policy in _BY_OPERATION:
        return _BY_OPERATION[policy]
    return jax.checkpoint_policies.save_only_these_names(*SAVED_NAMES[policy])

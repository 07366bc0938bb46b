"""Attention layers and masks, gathered under their public path."""

from praxis.base_layer import PREFIX_DECODE_CACHE, WeightHParams, WeightInit, template_field
from praxis.layers.attention.bias import RelativeBias
from praxis.layers.attention.blocks import (
    convert_to_block,
    extract_block_context,
    shift_1d,
)
from praxis.layers.attention.dconv import CausalDepthwiseConv1D
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.local import LocalSelfAttention
from praxis.layers.attention.local_bias import (
    LocalSelfAttentionAlibi,
    LocalSelfAttentionRelativeBias,
    LocalSelfAttentionXL,
)
from praxis.layers.attention.masks import (
    causal_mask,
    causal_segment_mask,
    convert_paddings_to_mask,
    limited_context_mask,
    merge_masks,
    segment_mask,
)
from praxis.layers.attention.prefix import DotProductAttentionWithLPB
from praxis.layers.attention.projection import AttentionProjection, CombinedQKVProjectionLayer
from praxis.layers.attention.relative import (
    DotProductAttentionXL,
    create_relative_positional_embedding,
)
from praxis.layers.attention.score import PerDimScale

__all__ = [
    "PREFIX_DECODE_CACHE",
    "AttentionProjection",
    "CausalDepthwiseConv1D",
    "CombinedQKVProjectionLayer",
    "DotProductAttention",
    "DotProductAttentionWithLPB",
    "DotProductAttentionXL",
    "LocalSelfAttention",
    "LocalSelfAttentionAlibi",
    "LocalSelfAttentionRelativeBias",
    "LocalSelfAttentionXL",
    "PerDimScale",
    "RelativeBias",
    "WeightHParams",
    "WeightInit",
    "causal_mask",
    "causal_segment_mask",
    "convert_paddings_to_mask",
    "convert_to_block",
    "create_relative_positional_embedding",
    "extract_block_context",
    "limited_context_mask",
    "merge_masks",
    "segment_mask",
    "shift_1d",
    "template_field",
]

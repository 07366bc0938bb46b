"""Multi-query attention, gathered under its public path."""

from praxis.base_layer import PREFIX_DECODE_CACHE, WeightHParams, WeightInit, template_field
from praxis.layers.attention.multi_query import MultiQueryDotProductAttention
from praxis.layers.attention.multi_query_prefix import MultiQueryDotProductAttentionLPB
from praxis.layers.attention.one_headed import OneHeadedAttentionProjection

__all__ = [
    "PREFIX_DECODE_CACHE",
    "MultiQueryDotProductAttention",
    "MultiQueryDotProductAttentionLPB",
    "OneHeadedAttentionProjection",
    "WeightHParams",
    "WeightInit",
    "template_field",
]

"""Grouped-query attention and its masks, gathered under their public path."""

from praxis.layers.attention.grouped_query import GroupedQueryAttention
from praxis.layers.attention.hidden_masks import (
    apply_dropout,
    apply_mask,
    apply_rope,
    attention_mask,
    causal_mask,
    padding_mask,
    segment_mask,
)

__all__ = [
    "GroupedQueryAttention",
    "apply_dropout",
    "apply_mask",
    "apply_rope",
    "attention_mask",
    "causal_mask",
    "padding_mask",
    "segment_mask",
]

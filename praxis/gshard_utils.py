"""Routing of tokens to experts, gathered under its public path."""

from praxis.utils.gating import (
    compute_gating,
    expert_choice_gating_on_logits,
    expert_choice_gating_on_logits_v2,
    top2_gating_on_logits,
    topk_gating_on_logits,
)
from praxis.utils.gshard import cum_sum, remove_dim, top_k

__all__ = [
    "compute_gating",
    "cum_sum",
    "expert_choice_gating_on_logits",
    "expert_choice_gating_on_logits_v2",
    "remove_dim",
    "top2_gating_on_logits",
    "top_k",
    "topk_gating_on_logits",
]

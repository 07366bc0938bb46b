"""What the fields of a mixture of experts have to be."""

from typing import TYPE_CHECKING

from praxis.layers.checks import check_sizes
from praxis.layers.transformer.norms import check_norm_policy
from praxis.utils import gating

if TYPE_CHECKING:
    from praxis.layers.transformer.moe import TransformerFeedForwardMoe

GATING_FUNCS = ("top2", "top_k", "dense_top2", "expert_choice", "expert_choice_v2")
# Those that limit the number of tokens of an expert; "top_k" may.
LIMITED = ("top2", "expert_choice", "expert_choice_v2")
DISPATCHES = ("auto", "einsum", "sort")


def check_fields(layer: "TransformerFeedForwardMoe") -> None:
    """Refuses fields that are impossible or contradict each other.

    Raises:
      ValueError: naming the layer, the fields and what they are.
    """
    check_sizes(layer, "input_dims", "hidden_dims", "num_experts", "num_groups")
    check_sizes(layer, "experts_per_token")
    check_norm_policy(layer)
    if layer.norm_policy == "post_skip":
        raise ValueError(
            f"{layer.path_text}: norm_policy 'post_skip' is not one of experts, expected 'pre', "
            "'post' or 'primer_hybrid'."
        )
    for field, names in (
        ("gating_func", GATING_FUNCS),
        ("dispatch", DISPATCHES),
        ("second_expert_policy", gating.SECOND_EXPERT_POLICIES),
        ("moe_gating_embedding_level", ("token", "sentence")),
    ):
        if (name := getattr(layer, field)) not in names:
            raise ValueError(
                f"{layer.path_text}: {field} is {name!r}, expected one of {list(names)}."
            )
    if layer.expert_weight_shards != 1:
        raise ValueError(
            f"{layer.path_text}: expert_weight_shards is {layer.expert_weight_shards}, expected "
            "1. Shard the weights by weight_split_dims_mapping."
        )
    if layer.moe_load_balance_loss_weight < 0.0:
        raise ValueError(
            f"{layer.path_text}: moe_load_balance_loss_weight is "
            f"{layer.moe_load_balance_loss_weight}, expected at least 0."
        )
    if layer.gating_func in LIMITED and not layer.has_capacity:
        raise ValueError(
            f"{layer.path_text}: unadjusted_expert_capacity_factor and expert_capacity_dim are "
            f"both 0, but gating_func {layer.gating_func!r} needs one of them, e.g. "
            "config.unadjusted_expert_capacity_factor = 2.0."
        )
    if layer.dispatch == "sort" and not layer.is_limited and not layer.plain_einsums:
        raise ValueError(
            f"{layer.path_text}: dispatch 'sort' without a capacity does not use einsum_tpl and "
            "einsum_gated_tpl, which are replaced. Set dispatch to 'einsum' or 'auto'."
        )

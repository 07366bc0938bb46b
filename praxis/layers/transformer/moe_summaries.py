"""What a mixture of experts reports about its routing."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis import base_layer
from praxis.layers.transformer import experts as moving
from praxis.utils import gating
from praxis.utils.routing import Routing


def summarise_routing(layer: base_layer.BaseLayer, routed: Routing) -> None:
    """Adds how many tokens found no place, and how many each expert got."""
    ratios = gating.over_capacity_ratios(routed)
    counts = gating.counts_by_experts(routed)
    for i, ratio in enumerate(ratios):
        layer.add_summary(f"over_capacity_{i + 1}_ratio", ratio)
    for i, count in enumerate(counts):
        layer.add_summary(f"dispatch_{i}", count / jnp.maximum(sum(counts), 1))
    layer.add_summary(
        "dropped_choices_ratio",
        lambda: moving.share_of(routed.wanted & ~routed.kept, routed.wanted),
        verbosity=4,
    )
    summarise_load(layer, routed.experts, routed.kept, routed.slots.shape[1])


def summarise_load(
    layer: base_layer.BaseLayer,
    experts: Int[Array, "G S K"],
    counted: Shaped[Array, "G S K"],
    num_experts: int,
) -> None:
    """Adds the share of each expert in the choices, 1 / E each where they are even."""
    layer.add_summary(
        "expert_load",
        lambda: moving.load_of_experts(experts, counted, num_experts),
        base_layer.SummaryType.HISTOGRAM,
        verbosity=4,
    )

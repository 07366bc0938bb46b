"""Mapping over trees of which some leaves are taken out.

A variable that takes no part is replaced by a node without children: `optax.MaskedNode`, or
`BpropMaskedNode` where it is excluded from training. Other trees of the same structure may hold a
leaf in that place, which `jax.tree.map` alone refuses.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from praxis.utils.trees import is_bprop_masked_node, is_optax_masked_node


def is_masked(x: Any) -> bool:
    """Whether this node stands for a variable that takes no part."""
    return is_optax_masked_node(x) or is_bprop_masked_node(x)


def map_unmasked(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` that returns the masked nodes of `tree` as they are."""
    return jax.tree.map(
        lambda leaf, *others: leaf if is_masked(leaf) else fn(leaf, *others),
        tree,
        *rest,
        is_leaf=is_masked,
    )


def masked_like(mask: Any, tree: Any) -> Any:
    """`tree` with `optax.MaskedNode` where the mask is false; the mask may be a prefix."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else optax.MaskedNode(), mask, tree)


def with_masked_nodes(state: Any) -> Any:
    """`state` with `optax.MaskedNode` in place of None."""
    return jax.tree.map(
        lambda leaf: optax.MaskedNode() if leaf is None else leaf,
        state,
        is_leaf=lambda leaf: leaf is None,
    )

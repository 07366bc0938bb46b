"""Norms of gradients and weights, and clipping by them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from praxis.core.context import JaxContext
from praxis.core.summaries import SummaryType, add_global_summary
from praxis.utils import trees


def add_scalar(name: str, value: Any) -> None:
    """Adds a scalar summary to the current context, if there is one."""
    if JaxContext.has_context():
        add_global_summary(name, value, SummaryType.SCALAR)


def _floats(tree: Any) -> list[Any]:
    """The floating leaves in float32; squares of narrower types overflow."""
    return [
        leaf.astype(jnp.float32)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def global_norm(tree: Any) -> Float[Array, ""]:
    """The root of the sum of squares of all floating leaves, in float32; 0 without any."""
    return jnp.asarray(optax.tree_utils.tree_norm(_floats(tree)), jnp.float32)


def norms_by_path(tree: Any) -> dict[str, Float[Array, ""]]:
    """The norm of each floating leaf by its path, such as `params/lm/softmax/w`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        trees.path_text(path): global_norm(leaf)
        for path, leaf in flat
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def scale_to_norm(norm: Float[Array, ""], limit: float | Float[Array, ""]) -> Float[Array, ""]:
    """min(1, limit / norm): 1 for a norm of 0, NaN for a norm that is NaN."""
    return jnp.minimum(1.0, limit / norm)


def scaled(leaf: jax.Array, scale: Float[Array, ""]) -> jax.Array:
    """Leaf * scale in the leaf's type; leaves that are not floating stay."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return (leaf * scale).astype(leaf.dtype)

"""Sizes of parts of a tree."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def l2_mean(
    tree: Any, prefix: str = "", max_level: int = 4, sep: str = "/"
) -> Mapping[str, jax.Array]:
    """Root mean square of the parts of a tree.

    Args:
      tree: Of arrays.
      prefix: First part of each name.
      max_level: A part is everything whose path begins with the same `max_level` keys.
      sep: Between the keys of a name.

    Returns:
      For each part sqrt(sum(x^2) / number of elements), in float32.

    Example:
      >>> values = l2_mean({"a": {"w": jnp.ones([3]), "b": jnp.zeros([1])}}, max_level=1)
      >>> {name: round(float(value), 3) for name, value in values.items()}
      {'a': 0.866}
    """
    parts: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path[:max_level], simple=True, separator=sep)
        parts.setdefault(f"{prefix}{sep}{name}" if prefix else name, []).append(jnp.asarray(leaf))
    return {name: _root_mean_square(leaves) for name, leaves in parts.items()}


def _root_mean_square(leaves: list[jax.Array]) -> jax.Array:
    squares = sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in leaves)
    return jnp.sqrt(squares / max(1, sum(leaf.size for leaf in leaves)))

"""Summaries of stacked layers, as one array for all layers or as a list with one for each."""

from typing import Any

import jax
import jax.numpy as jnp


def maybe_unpack_summary(tree: Any, unpack_summaries: bool, x_times: int) -> Any:
    """Replaces each array [n, ...] of the tree by a list of n arrays [1, ...].

    Args:
      tree: Summaries of a stack of layers.
      unpack_summaries: Whether to do so; otherwise the tree is handed back.
      x_times: n, the number of layers.

    Raises:
      ValueError: if an array does not have n entries.
    """
    if not unpack_summaries:
        return tree

    def unpack(values: jax.Array) -> list[jax.Array]:
        if values.shape[:1] != (x_times,):
            raise ValueError(
                f"A stacked summary has shape {values.shape}, expected [x_times, ...] with "
                f"x_times = {x_times}."
            )
        return jnp.split(values, x_times)

    return jax.tree.map(unpack, tree)


def maybe_repack_summary(tree: Any, unpack_summaries: bool, x_times: int) -> Any:
    """Replaces each list of n arrays [1, ...] by one [n, 1, ...].

    Args:
      tree: A tree from `maybe_unpack_summary`; what is not in a list is kept.
      unpack_summaries: Whether to do so; otherwise the tree is handed back.
      x_times: n, the number of layers.

    Raises:
      ValueError: if a list does not have n entries.
    """
    if not unpack_summaries:
        return tree

    def repack(node: Any) -> Any:
        if not isinstance(node, list):
            return node
        if len(node) != x_times:
            raise ValueError(
                f"An unpacked summary has {len(node)} entries, expected x_times = {x_times}."
            )
        return jnp.stack(node)

    return jax.tree.map(repack, tree, is_leaf=lambda node: isinstance(node, list))

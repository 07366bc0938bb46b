"""Array helpers for expert routing."""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Shaped


def cum_sum(
    elements: Shaped[Array, "..."], axis: int = 0, exclusive: bool = False, reverse: bool = False
) -> Shaped[Array, "..."]:
    """Cumulative sum along an axis.

    Args:
      elements: [...].
      axis: Along which to add.
      exclusive: Leave out the element itself, so that the first sum is 0.
      reverse: Add from the end.

    Returns:
      Sums, in the shape and dtype of the elements.
    """
    sums = jax.lax.cumsum(elements, axis=axis % elements.ndim, reverse=reverse)
    return sums - elements if exclusive else sums


def remove_dim(dim: int, split_dims_mapping: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """A sharding without the entry of one dim, which may be counted from the end.

    Raises:
      ValueError: if there is no such dim.
    """
    if split_dims_mapping is None:
        return None
    rank = len(split_dims_mapping)
    if not -rank <= dim < rank:
        raise ValueError(f"remove_dim: {tuple(split_dims_mapping)} has no dim {dim}.")
    return tuple(entry for i, entry in enumerate(split_dims_mapping) if i != dim % rank)


def top_k(x: Shaped[Array, "*B E"], k: int) -> tuple[Shaped[Array, "*B k"], Shaped[Array, "*B k"]]:
    """The k largest values of the last axis, in descending order, and their indices."""
    values, indices = jax.lax.top_k(x, k)
    return values, indices

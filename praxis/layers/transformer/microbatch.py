"""Splitting a batch into microbatches, and putting them together again.

Example b goes to microbatch b % M, not to b // (B / M): a batch that is sharded over devices in
contiguous pieces is then split without moving examples, and each microbatch is sharded as well.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def split_batch(x: Shaped[Array, "B ..."], num_microbatches: int) -> Shaped[Array, "M b ..."]:
    """Splits the leading axis, whose length is a multiple of M, into M microbatches."""
    return x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1)


def merge_batch(x: Shaped[Array, "M b ..."]) -> Shaped[Array, "B ..."]:
    """Undoes `split_batch`: examples are in their first order again."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def has_batch(leaf: Any, batch: int) -> bool:
    """Whether an argument has one entry for each example: an array with a leading axis of B.

    Other arguments, as scalars and masks [1, 1, T, T], are the same for all examples.
    """
    return hasattr(leaf, "shape") and leaf.shape[:1] == (batch,)


def take_each(tree: Any, ids: Shaped[Array, " S"]) -> Any:
    """The entry of each stage, [S, ...], of arrays [M, ...]."""
    return jax.tree.map(lambda x: jnp.take(x, ids, axis=0, mode="clip"), tree)

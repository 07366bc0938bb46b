"""Caches of several beginnings of each row: one copy for each, or what they have in common once."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Int, Shaped

from praxis.decoding.finished import shuffle_state
from praxis.decoding.state import StateFn, slice_state_fn


def share_prefix(
    model: Any,
    transform_state_fn: Callable[..., Any],
    lazy_broadcast_prefix_fn: Callable[..., Any],
    *,
    copies: int,
    room: int,
) -> None:
    """Makes caches of prefixes into prefixes that `copies` continuations of each row share.

    Args:
      model: The model.
      transform_state_fn: (model, fn), which replaces the caches by `fn(x, batch_dim, time_dim)`.
      lazy_broadcast_prefix_fn: (model, copies, suffix_length), which starts caches of suffixes.
      copies: Continuations of each row.
      room: Tokens of each.
    """
    # The first step adds the last token of the prefix again, to the suffix.
    transform_state_fn(model, slice_state_fn(0, -1))
    lazy_broadcast_prefix_fn(model, copies, room + 1)


def shuffle_state_fn(parents: Int[Array, "B K"], use_one_hot_matmul: bool = False) -> StateFn:
    """Makes a function that takes the caches of the given ones of K beginnings of each row.

    Args:
      parents: [B, K], below K.
      use_one_hot_matmul: As in `shuffle_state`.
    """
    batch, beam_size = parents.shape

    def fn(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
        del time_dim
        if batch_dim < 0:
            return x
        # The suffix of a shared prefix has an axis of beginnings; other caches have B * K rows.
        lead, rest = x.shape[:batch_dim], x.shape[batch_dim:]
        split = rest[:2] == (batch, beam_size)
        inner = rest[2:] if split else rest[1:]
        if not split and rest[0] != batch * beam_size:
            return x  # Not repeated for the beginnings.
        stacked = x.reshape(-1, batch, beam_size, *inner)
        moved = jax.vmap(lambda rows: shuffle_state(rows, parents, use_one_hot_matmul))(stacked)
        return moved.reshape(*lead, *rest)

    return fn

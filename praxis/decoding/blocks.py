"""Best-of-n decoding, block by block."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Int

from praxis import base_layer, py_utils
from praxis.decoding import caches, loop
from praxis.decoding.options import ControlledDecodingHParams
from praxis.decoding.samples_axis import split_batch_dim

NestedMap = py_utils.NestedMap


def run_blocks(
    model: Any,
    settings: loop.LoopSettings,
    state: NestedMap,
    transform_state_fn: Callable[..., Any],
    controlled: ControlledDecodingHParams,
    *,
    last_step: int,
) -> NestedMap:
    """Generates blocks of tokens, of each of which the likeliest of several goes on.

    Mudgal et al., "Controlled Decoding from Language Models", 2023, arXiv:2310.17022, section 3.2,
    with the log-probability of the block as its value. Of a row's n samples, each is drawn m =
    `block_num_samples` times; after a block all m are replaced by the best of them.

    Args:
      model: The model, whose caches have N = B * n * m rows.
      settings: The settings of the loop.
      state: Its state.
      transform_state_fn: (model, fn), which replaces the caches.
      controlled: Length and number of blocks.
      last_step: Where generation ends.
    """
    many = controlled.block_num_samples

    def unfinished(_: Any, state: NestedMap) -> Bool[Array, ""]:
        return (state.step < last_step) & ~jnp.all(state.done)

    def block(model: Any, state: NestedMap) -> NestedMap:
        first = state.step
        end = jnp.minimum(first + controlled.interval, last_step)
        state = loop.run_until(model, settings, state, end)
        best = _likeliest(state, first, many)  # [N / m, m]
        transform_state_fn(model, caches.shuffle_state_fn(_in_rows(best, settings.num_samples)))
        rows = (best + jnp.arange(best.shape[0])[:, jnp.newaxis] * many).reshape(-1)
        num_rows = state.done.shape[0]
        return state.Transform(lambda x: x[rows] if x.ndim and x.shape[0] == num_rows else x)

    return nn.while_loop(
        unfinished,  # pyright: ignore[reportArgumentType]  # a traced bool
        block,
        model,
        state,
        carry_variables=base_layer.DECODE_CACHE,
        split_rngs={base_layer.RANDOM: True},
    )


def _likeliest(state: NestedMap, first: Int[Array, ""], many: int) -> Int[Array, "groups m"]:
    """The number of the likeliest of each m neighbours, for each of them."""
    place = jnp.arange(state.logprobs.shape[1])[jnp.newaxis]
    scores = jnp.where(place > first, jnp.minimum(state.logprobs, 0.0), 0.0).sum(axis=1)
    best = jnp.argmax(split_batch_dim(scores, 0, many), axis=1)[:, jnp.newaxis]
    return jnp.broadcast_to(best, (best.shape[0], many))


def _in_rows(best: Int[Array, "groups m"], copies: int) -> Int[Array, "B copies"]:
    """The same numbers, counted from the first of all copies of a row of the batch."""
    many = best.shape[1]
    groups = copies // many
    by_row = best.reshape(-1, groups, many)
    offset = jnp.arange(groups)[jnp.newaxis, :, jnp.newaxis] * many
    return (by_row + offset).reshape(-1, copies)

"""Continuous batching: texts in slots, which take one step together, each at its own place."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis import py_utils
from praxis.decoding import mesh
from praxis.decoding.extend import coerce_to_expanded_extend_step_fn
from praxis.decoding.loop import logprobs_of
from praxis.decoding.samplers import DefaultNextTokenSampler
from praxis.decoding.samples_axis import NO_LOGPROB
from praxis.decoding.state import pad_state_fn
from praxis.decoding.stop import has_any_eos

NestedMap = py_utils.NestedMap


def sample_init_decode_state(
    model: Any,
    prefix_ids: Int[Array, "N P"],
    max_prefix_len: int | None = None,
    max_decode_steps: int | None = None,
    top_k: int = 1,
    top_p: float | Shaped[Array, "..."] | None = None,
    prefix_lengths: Int[Array, " N"] | None = None,
    eos_id: int | Sequence[int] | None = None,
    transform_state_fn: Callable[..., Any] | None = None,
) -> NestedMap:
    """The state of N slots before the first step.

    Args:
      model: The model.
      prefix_ids: [N, P], aligned to the right.
      max_prefix_len: Width of the prefixes; None: P.
      max_decode_steps: Most tokens to generate; the caches get room for them. None: 1, no room.
      top_k: Candidates of each slot; 1 is greedy, 0 takes all.
      top_p: Of each slot; None: 1.
      prefix_lengths: [N], None: P.
      eos_id: Not read; for the sampling step.
      transform_state_fn: (model, fn), which replaces the caches. None: they have room.

    Returns:
      A NestedMap of
      - step: [], place of the last token in the caches
      - per_sample_steps: [N], tokens that were generated
      - done, has_eos: [N]
      - prefix_lengths, segment_pos, decode_lengths: [N]
      - output_ids, logprobs: [N], of the last token
      - temperature, per_example_max_decode_steps, per_example_top_p, per_example_top_k: [N]
    """
    del eos_id
    if transform_state_fn is not None and max_decode_steps is not None:
        transform_state_fn(model, pad_state_fn(max_decode_steps))
    num_slots, width = prefix_ids.shape
    max_prefix_len = max_prefix_len or width
    limit = 1 if max_decode_steps is None else max_decode_steps
    if prefix_lengths is None:
        prefix_lengths = jnp.full((num_slots,), max_prefix_len)
    lengths = prefix_lengths.astype(jnp.int32)

    def each(value: int | float, dtype: Any) -> Shaped[Array, " N"]:
        return jnp.full((num_slots,), value, dtype)

    return NestedMap(
        step=jnp.asarray(max_prefix_len - 1, jnp.int32),
        per_sample_steps=each(0, jnp.int32),
        done=each(False, jnp.bool),
        has_eos=each(False, jnp.bool),
        prefix_lengths=lengths,
        segment_pos=jnp.maximum(lengths - 1, 0),
        decode_lengths=lengths,
        output_ids=prefix_ids[:, max_prefix_len - 1].astype(jnp.int32),
        logprobs=each(NO_LOGPROB, jnp.float32),
        temperature=each(0.0 if top_k == 1 else 1.0, jnp.float32),
        per_example_max_decode_steps=each(limit, jnp.int32),
        per_example_top_p=jnp.broadcast_to(
            jnp.asarray(1.0 if top_p is None else top_p, jnp.float32), (num_slots,)
        ),
        per_example_top_k=each(top_k, jnp.int32),
    )


def sample_decoding_step(
    model: Any,
    decode_state: NestedMap,
    extend_step_fn: Callable[..., Any],
    top_k: int = 1,
    top_p: float | None = None,
    max_prefix_len: int | None = None,
    max_decode_steps: int | None = None,
    decode_loop_mesh_axes_transpose: dict[str, str] | None = None,
    eos_id: int | Sequence[int] | None = None,
) -> NestedMap:
    """Generates the next token of each slot.

    Args:
      model: The model, in `apply` with the decode cache mutable.
      decode_state: As `sample_init_decode_state` gives.
      extend_step_fn: (model, ids [N], segment_pos [N]) -> logits [N, V].
      top_k: The most candidates of a slot, of which it takes its own number; 1 is greedy, 0 takes
        all.
      top_p: The same for all slots; None: each has its own.
      max_prefix_len: Not read: the state knows the places of the slots.
      max_decode_steps: Most tokens of all slots; None: each has its own limit.
      decode_loop_mesh_axes_transpose: Real mesh axis by the annotated one.
      eos_id: Tokens that end a text.

    Returns:
      The new state. Slots that are done have token 0, with log-probability 1.
    """
    del max_prefix_len
    state = decode_state
    extend_step = coerce_to_expanded_extend_step_fn(extend_step_fn)
    with mesh.maybe_decode_mesh_transpose(model, decode_loop_mesh_axes_transpose):
        logits = extend_step(model, state.output_ids, state.segment_pos, state)
    chosen = DefaultNextTokenSampler(top_k=top_k)(
        model,
        logits,
        state.temperature,
        state,
        per_example_top_p=state.per_example_top_p if top_p is None else jnp.asarray(top_p),
        per_example_top_k=None if top_k == 0 else _known_top_k(state.per_example_top_k, top_k),
    )
    new_ids = jnp.where(state.done, 0, chosen.new_ids)
    limit = state.per_example_max_decode_steps
    if max_decode_steps is not None:
        limit = jnp.minimum(limit, max_decode_steps)
    live = ~state.done
    ended = jnp.zeros_like(live) if eos_id is None else has_any_eos(new_ids, eos_id) & live

    new = NestedMap(state)
    new.step = state.step + 1
    new.per_sample_steps = state.per_sample_steps + live.astype(jnp.int32)
    new.segment_pos = state.segment_pos + 1
    new.output_ids = new_ids
    new.logprobs = jnp.where(live, logprobs_of(logits, new_ids), NO_LOGPROB)
    new.decode_lengths = state.decode_lengths + live.astype(jnp.int32)
    new.has_eos = state.has_eos | ended
    new.done = state.done | ended | (new.per_sample_steps >= limit)
    return new


def _known_top_k(per_slot: Int[Array, " N"], top_k: int) -> Int[Array, " N"]:
    """The number of candidates of each slot; of slots that want all, as many as there are."""
    return jnp.where(per_slot <= 0, top_k, per_slot)

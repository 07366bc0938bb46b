"""Beam search: the most likely texts, of which the best beginnings are kept."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding import caches, mesh
from praxis.decoding.extend import coerce_to_expanded_extend_step_fn
from praxis.decoding.finished import (
    NO_SCORE,
    Finished,
    broadcast_beam_dim,
    shuffle_state,
    update_global_beam,
)
from praxis.decoding.hypotheses import (
    gather_logprobs,
    gather_output_id,
    length_norm,
    two_stage_topk,
)
from praxis.decoding.options import BeamSearchHParams
from praxis.decoding.prefix import left_aligned
from praxis.decoding.samples_axis import NO_LOGPROB, split_batch_dim
from praxis.decoding.state import batch_broadcast_state_fn, left_align_tensor, pad_state_fn
from praxis.decoding.steps import decode_steps
from praxis.decoding.stop import has_any_eos

NestedMap = py_utils.NestedMap
ComputeLogprobs = Callable[..., Float[Array, "N V"]]

# Log-probability of an end-of-text token that must not come yet.
TOO_EARLY = -1e20


def default_compute_logprobs_fn(
    logits: Float[Array, "N V"],
    model: Any,
    extend_ids: Int[Array, " N"],
    segment_pos: Int[Array, " N"],
    decode_loop_state: NestedMap,
) -> Float[Array, "N V"]:
    """Log-probabilities of the next token, float32."""
    del model, extend_ids, segment_pos, decode_loop_state
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)


def beam_search(
    model: Any,
    extend_step_fn: Callable[..., Any],
    fprop_fn: Callable[..., Any],
    transform_state_fn: Callable[..., Any],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    beam_search_hparams: BeamSearchHParams,
    compute_logprobs_fn: ComputeLogprobs = default_compute_logprobs_fn,
    decode_loop_mesh_axes_transpose: dict[str, str] | None = None,
    model_var_pspecs: Any = None,
    process_result_fn: Callable[..., Any] | None = None,
    lazy_broadcast_prefix_fn: Callable[..., Any] | None = None,
) -> NestedMap:
    """Searches for the most likely continuations of prefixes.

    A text that ends is scored by its log-probability divided by `length_norm` of its length, and
    competes for the K best ended texts; K beginnings go on. Shapes: B rows, P width of the
    prefixes, K `beam_size`, S = P + `max_decode_steps`.

    Args:
      model: The model, a layer inside `apply` with the decode cache mutable.
      extend_step_fn: (model, ids [B * K], segment_pos [B * K]) -> logits [B * K, V], which adds a
        token to the caches.
      fprop_fn: (model, prefix_ids, prefix_paddings), which fills the caches.
      transform_state_fn: (model, fn), which replaces the caches by `fn(x, batch_dim, time_dim)`.
      prefix_ids: [B, P], tokens, aligned to the right.
      prefix_paddings: [B, P], 1 marks padding.
      beam_search_hparams: How. `max_decode_steps` is needed; of a list, the last entry counts.
      compute_logprobs_fn: (logits [B * K, V], model, ids, segment_pos, state) -> log-probabilities.
      decode_loop_mesh_axes_transpose: Real mesh axis by the annotated one, in the loop.
      model_var_pspecs: PartitionSpecs of the parameters, for that.
      process_result_fn: Applied to (model, results) at the end.
      lazy_broadcast_prefix_fn: (model, K, steps): beginnings share the caches of their prefix. None
        repeats these.

    Returns:
      A NestedMap of
      - output_ids: [B, K, S], prefix, continuation with its end-of-text token, zeros; texts by
        falling score. Only texts that end count: places without one have the prefix alone
      - scores: [B, K], log-probability over `length_norm`; -1e9 where there is no text
      - decode_lengths: [B, K], tokens of prefix and continuation
      - logprobs: [B, K, S], of the chosen tokens; 1 where none was chosen, 0 in the last places
      - prefix_ids: [B, 1, P], zeros behind the prefix
      - prefix_lengths, original_lengths: [B, K]
      - hyp_ids, done: [B, K]; segment_pos [B * K]; end_logprobs [B, K, S], the state at the end

    Raises:
      ValueError: if `max_decode_steps` or `beam_size` is missing.
    """
    fprop_fn(model, prefix_ids, prefix_paddings)
    with mesh.maybe_decode_mesh_transpose(model, decode_loop_mesh_axes_transpose):
        model = mesh.maybe_reshard_mdl_for_decode(
            model, decode_loop_mesh_axes_transpose, model_var_pspecs, transform_state_fn
        )
        result = beam_search_after_prefix_fprop(
            model,
            extend_step_fn,
            transform_state_fn,
            prefix_ids,
            prefix_paddings,
            beam_search_hparams,
            compute_logprobs_fn,
            lazy_broadcast_prefix_fn,
        )
    return result if process_result_fn is None else process_result_fn(model, result)


@dataclasses.dataclass(frozen=True)
class _Search:
    """What does not change from step to step; fields as in `beam_search`."""

    extend_step_fn: Callable[..., Any]
    transform_state_fn: Callable[..., Any]
    compute_logprobs_fn: ComputeLogprobs
    hparams: BeamSearchHParams
    max_prefix_len: int

    @property
    def eos_ids(self) -> Sequence[int]:
        """The tokens that end a text."""
        eos = self.hparams.eos_id
        return [eos] if isinstance(eos, int) else list(eos)


def beam_search_after_prefix_fprop(
    model: Any,
    extend_step_fn: Callable[..., Any],
    transform_state_fn: Callable[..., Any],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    beam_search_hparams: BeamSearchHParams,
    compute_logprobs_fn: ComputeLogprobs = default_compute_logprobs_fn,
    lazy_broadcast_prefix_fn: Callable[..., Any] | None = None,
) -> NestedMap:
    """As `beam_search`, where the caches are filled with the prefixes."""
    _check(beam_search_hparams)
    batch, max_prefix_len = prefix_ids.shape
    num_steps = decode_steps(beam_search_hparams.max_decode_steps, 0)[-1]
    search = _Search(
        coerce_to_expanded_extend_step_fn(extend_step_fn),
        transform_state_fn,
        compute_logprobs_fn,
        beam_search_hparams,
        max_prefix_len,
    )
    beam_size = beam_search_hparams.beam_size
    if lazy_broadcast_prefix_fn is None:
        transform_state_fn(model, pad_state_fn(num_steps))
        transform_state_fn(model, batch_broadcast_state_fn(beam_size))
    else:
        caches.share_prefix(
            model, transform_state_fn, lazy_broadcast_prefix_fn, copies=beam_size, room=num_steps
        )
    lengths = jnp.sum((prefix_paddings == 0).astype(jnp.int32), axis=1)
    state = _initial_state(prefix_ids, lengths, beam_size, num_steps)
    last_step = max_prefix_len + num_steps - 1

    def unfinished(_: Any, state: NestedMap) -> Bool[Array, ""]:
        running = state.step < last_step
        return running & ~jnp.all(state.done) if beam_search_hparams.early_exit else running

    state = nn.while_loop(
        unfinished,  # pyright: ignore[reportArgumentType]  # a traced bool
        lambda model, state: _next_state(model, search, state),
        model,
        state,
        carry_variables=base_layer.DECODE_CACHE,
        split_rngs={base_layer.RANDOM: True},
    )
    return _result(state, prefix_ids, lengths, batch, beam_size)


def _check(hparams: BeamSearchHParams) -> None:
    if hparams.max_decode_steps is None:
        raise ValueError(
            "beam_search: BeamSearchHParams.max_decode_steps is None, expected the most tokens to "
            "generate."
        )
    for field, least in (("beam_size", 1), ("tokens_per_beam", 1)):
        value = getattr(hparams, field)
        if value is not None and value < least:
            raise ValueError(
                f"beam_search: BeamSearchHParams.{field} is {value}, expected at least {least}."
            )


def _initial_state(
    prefix_ids: Int[Array, "B P"], lengths: Int[Array, " B"], beam_size: int, num_steps: int
) -> NestedMap:
    """The state before the first step, of which `step` is the place of the last known token."""
    batch, max_prefix_len = prefix_ids.shape
    ids = jnp.pad(prefix_ids.astype(jnp.int32), ((0, 0), (0, num_steps)))
    ids = broadcast_beam_dim(ids, 1, beam_size)  # [B, K, S]
    # All beginnings are the same: only the first one goes on at first.
    scores = jnp.broadcast_to(NO_SCORE * jnp.arange(beam_size, dtype=jnp.float32), ids.shape[1:2])
    logprobs = jnp.full(ids.shape, NO_LOGPROB, jnp.float32)
    return NestedMap(
        step=jnp.asarray(max_prefix_len - 1, jnp.int32),
        segment_pos=jnp.repeat(lengths - 1, beam_size),
        output_ids=ids,
        logprobs=logprobs,
        hyp_scores=broadcast_beam_dim(scores, 0, batch),
        hyp_ids=jnp.zeros((batch, beam_size), jnp.int32),
        done=jnp.zeros((batch, beam_size), jnp.bool),
        end_ids=ids,
        end_lengths=jnp.zeros((batch, beam_size), jnp.int32),
        end_scores=jnp.full((batch, beam_size), NO_SCORE, jnp.float32),
        end_logprobs=logprobs,
    )


def _next_state(model: Any, search: _Search, state: NestedMap) -> NestedMap:
    """Adds a token to each beginning, and keeps the best ones."""
    hparams, eos_ids = search.hparams, search.eos_ids
    batch, beam_size = state.hyp_scores.shape
    ids = jax.lax.dynamic_index_in_dim(state.output_ids, state.step, axis=2, keepdims=False)
    ids = ids.reshape(-1)
    logits = search.extend_step_fn(model, ids, state.segment_pos, state)
    logprobs = search.compute_logprobs_fn(logits, model, ids, state.segment_pos, state)
    logprobs = logprobs.reshape(batch, beam_size, -1)
    num_generated = state.step + 2 - search.max_prefix_len  # with the token that is chosen now
    is_eos = has_any_eos(jnp.arange(logprobs.shape[-1]), eos_ids)[jnp.newaxis, jnp.newaxis]
    too_early = is_eos & (num_generated <= hparams.min_decode_steps)
    logprobs = jnp.where(too_early, TOO_EARLY, logprobs)

    new = NestedMap(state)
    ended = _ended(search, state, logprobs, num_generated)
    finished = update_global_beam(
        (state.end_ids, state.end_lengths, state.end_scores, state.end_logprobs), ended
    )
    new.end_ids, new.end_lengths, new.end_scores, new.end_logprobs = finished

    # With early exit an end of text is a token like others.
    terminal_ids = () if hparams.early_exit else eos_ids
    tokens_per_beam = min(hparams.tokens_per_beam or beam_size, logprobs.shape[-1])
    _, long_ids, new.hyp_scores, best = two_stage_topk(
        logprobs, state.hyp_scores, terminal_ids, tokens_per_beam
    )
    new_ids = gather_output_id(long_ids, best)
    parents = (best // tokens_per_beam).astype(jnp.int32)  # [B, K]
    new.hyp_ids = parents
    new.done = shuffle_state(state.done, parents) | has_any_eos(new_ids, eos_ids)
    for name, column in (
        ("output_ids", new_ids + hparams.output_id_offset),
        ("logprobs", gather_logprobs(logprobs, parents, new_ids)),
    ):
        kept = shuffle_state(state[name], parents)
        new[name] = _write(kept, column, state.step + 1)
    search.transform_state_fn(
        model, caches.shuffle_state_fn(parents, hparams.use_matmul_beam_shuffle)
    )
    new.step = state.step + 1
    new.segment_pos = state.segment_pos + 1
    return new


def _ended(
    search: _Search,
    state: NestedMap,
    logprobs: Float[Array, "B K V"],
    num_generated: Int[Array, ""],
) -> Finished:
    """The beginnings, ended here by the likeliest end-of-text token."""
    eos_ids = jnp.asarray(search.eos_ids, jnp.int32)
    of_eos = logprobs[..., eos_ids]  # [B, K, number of them]
    best = jnp.argmax(of_eos, axis=-1)
    logprob = jnp.max(of_eos, axis=-1)
    norm = length_norm(num_generated, search.hparams.length_norm_alpha)
    scores = (state.hyp_scores + logprob) / norm
    none = (state.hyp_scores <= NO_SCORE / 2) | (logprob <= TOO_EARLY / 2)
    new_ids = eos_ids[best] + search.hparams.output_id_offset
    return Finished(
        _write(state.output_ids, new_ids, state.step + 1),
        jnp.broadcast_to(num_generated, scores.shape).astype(jnp.int32),
        jnp.where(none, NO_SCORE, scores),
        _write(state.logprobs, logprob, state.step + 1),
    )


def _write(
    x: Shaped[Array, "B K S"], column: Shaped[Array, "B K"], step: Int[Array, ""]
) -> Shaped[Array, "B K S"]:
    column = column[..., jnp.newaxis].astype(x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(x, column, step, axis=2)


def _result(
    state: NestedMap,
    prefix_ids: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    batch: int,
    beam_size: int,
) -> NestedMap:
    """The results, aligned to the left."""
    max_prefix_len = prefix_ids.shape[1]
    by_text = jnp.repeat(lengths, beam_size)

    def left(x: Shaped[Array, "B K S"]) -> Shaped[Array, "B K S"]:
        flat = left_align_tensor(x.reshape(batch * beam_size, -1), by_text, max_prefix_len)
        return split_batch_dim(flat, 0, beam_size)

    prefixes = left_aligned(left_align_tensor(prefix_ids, lengths, max_prefix_len), lengths)
    repeated = broadcast_beam_dim(lengths, 1, beam_size)
    return NestedMap(
        output_ids=left(state.end_ids),
        logprobs=left(state.end_logprobs),
        scores=state.end_scores,
        decode_lengths=state.end_lengths + repeated,
        prefix_lengths=repeated,
        original_lengths=repeated,
        prefix_ids=prefixes[:, jnp.newaxis],
        hyp_ids=state.hyp_ids,
        done=state.done,
        segment_pos=state.segment_pos,
        end_logprobs=state.end_logprobs,
    )

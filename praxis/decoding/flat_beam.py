"""Beam search over a flat list of steps, which masks histories where others reorder caches.

After t steps of K beginnings there are t * K entries, step after step. `beam_mask` [B, K, K * S]
says which of them, of all K * S to come, belong to each beginning.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding.extend import coerce_to_expanded_extend_step_fn
from praxis.decoding.finished import NO_SCORE, shuffle_state, update_global_beam
from praxis.decoding.hypotheses import gather_output_id, length_norm, two_stage_topk

NestedMap = py_utils.NestedMap


def init_loop_var(
    target_prefix_ids: Int[Array, " B"], beam_size: int, seq_len: int, fprop_dtype: DTypeLike
) -> NestedMap:
    """The state before the first step.

    Args:
      target_prefix_ids: [B] or [B, 1], the token that all beginnings start with.
      beam_size: K.
      seq_len: S, steps.
      fprop_dtype: Of the mask.

    Returns:
      A NestedMap of
      - step: []
      - output_ids: [B, K * S], the tokens of all beginnings, step after step
      - beam_mask: [B, K, K * S], 1 marks what belongs to a beginning
      - hyp_scores: [B, K], log-probabilities
      - end_ids [B, K, S], end_scores_norm [B, K], end_decode_lengths [B, K]: texts that have ended
    """
    first = target_prefix_ids.reshape(-1, 1).astype(jnp.int32)
    batch = first.shape[0]
    output_ids = jnp.zeros((batch, beam_size * seq_len), jnp.int32)
    output_ids = output_ids.at[:, :beam_size].set(jnp.repeat(first, beam_size, axis=1))
    eye = jnp.eye(beam_size, beam_size * seq_len, dtype=fprop_dtype)[jnp.newaxis]
    scores = NO_SCORE * jnp.arange(beam_size, dtype=jnp.float32)[jnp.newaxis]
    return NestedMap(
        step=jnp.zeros([], jnp.int32),
        output_ids=output_ids,
        beam_mask=jnp.repeat(eye, batch, axis=0),
        hyp_scores=jnp.repeat(scores, batch, axis=0),
        end_ids=jnp.zeros((batch, beam_size, seq_len), jnp.int32),
        end_scores_norm=jnp.full((batch, beam_size), NO_SCORE, jnp.float32),
        end_decode_lengths=jnp.ones((batch, beam_size), jnp.int32),
    )


def update_beam_mask(
    beam_mask: Float[Array, "B K M"], hyp_id: Int[Array, "B K"], time_step: int | Int[Array, ""]
) -> Float[Array, "B K M"]:
    """Histories of new beginnings: those of their parents, and the entries of a step.

    Args:
      beam_mask: [B, K, K * S], of the old beginnings.
      hyp_id: [B, K], the parent of each new one.
      time_step: The step whose K entries the new ones own.
    """
    beam_size = beam_mask.shape[1]
    inherited = shuffle_state(beam_mask, hyp_id)
    place = jnp.arange(beam_mask.shape[2])[jnp.newaxis] - time_step * beam_size
    own = (place == jnp.arange(beam_size)[:, jnp.newaxis]).astype(beam_mask.dtype)
    return jnp.maximum(inherited, own[jnp.newaxis])


def get_final_output_ids(
    beam_mask: Float[Array, "B K M"], output_ids: Int[Array, "B M"]
) -> Int[Array, "B K S"]:
    """The tokens of each beginning, [B, K, S], out of those of all, [B, K * S]."""
    batch, beam_size, total = beam_mask.shape
    by_step = (batch, beam_size, total // beam_size, beam_size)
    mine = (beam_mask != 0).reshape(by_step)
    tokens = output_ids.reshape(batch, 1, *by_step[2:])
    return jnp.sum(jnp.where(mine, tokens, 0), axis=-1)


def post_process(
    result: NestedMap, eos_id: int | Sequence[int], max_decoding_steps: int
) -> NestedMap:
    """The results of the loop, without what is behind the ends of texts.

    Args:
      result: The state, see `init_loop_var`.
      eos_id: Tokens that end a text; a text that is not ended by one ends with the last step.
      max_decoding_steps: Most tokens to keep.

    Returns:
      `output_ids` [B, K, S], `decode_lengths` and `scores` [B, K].
    """
    del eos_id  # The lengths say where the texts end.
    lengths = jnp.minimum(result.end_decode_lengths, max_decoding_steps)
    place = jnp.arange(result.end_ids.shape[-1])[jnp.newaxis, jnp.newaxis]
    return NestedMap(
        output_ids=jnp.where(place < lengths[..., jnp.newaxis], result.end_ids, 0),
        decode_lengths=lengths,
        scores=result.end_scores_norm,
    )


def flat_beam_search(
    model: Any,
    extend_step_fn: Callable[..., Any],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    seq_len: int,
    beam_size: int,
    fprop_dtype: DTypeLike,
    max_decode_steps: int | None = None,
    eos_id: int | None = None,
    length_norm_alpha: float = 0.8,
) -> NestedMap:
    """Searches for the likeliest continuations of the last token of each prefix.

    For models whose caches hold all entries [B, K * S] and whose steps follow `beam_mask`, or that
    look at no token but the last. The attention layers here do not; use `beam_search` with them.

    Args:
      model: The model, in `apply` with the decode cache mutable.
      extend_step_fn: (model, ids [B, K], None, state) -> logits [B, K, V], where the state has
        `beam_mask` and `step`; or without the last argument.
      prefix_ids: [B, P]; only the last column is read.
      prefix_paddings: Not read.
      seq_len: S, tokens of a text with the first one.
      beam_size: K.
      fprop_dtype: Of the mask.
      max_decode_steps: Most tokens to generate; None: S - 1.
      eos_id: The token that ends a text; needed.
      length_norm_alpha: Exponent of the length by which scores are divided.

    Returns:
      As `post_process`.

    Raises:
      ValueError: if `eos_id` is None.
    """
    del prefix_paddings
    if eos_id is None:
        raise ValueError(
            "flat_beam_search: eos_id is None, expected the token that ends a text: only texts "
            "that end are results."
        )
    extend_step = coerce_to_expanded_extend_step_fn(extend_step_fn)
    last_step = min(seq_len - 1, seq_len if max_decode_steps is None else max_decode_steps)
    state = init_loop_var(prefix_ids[:, -1], beam_size, seq_len, fprop_dtype)

    def body(model: Any, state: NestedMap) -> NestedMap:
        now = state.step * beam_size
        ids = lax.dynamic_slice_in_dim(state.output_ids, now, beam_size, axis=1)
        logits = extend_step(model, ids, None, state)
        logprobs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        return _next_state(state, logprobs, eos_id, length_norm_alpha)

    state = nn.while_loop(
        lambda _, state: state.step < last_step,
        body,
        model,
        state,
        carry_variables=base_layer.DECODE_CACHE,
        split_rngs={base_layer.RANDOM: True},
    )
    return post_process(state, eos_id, last_step + 1)


def _next_state(
    state: NestedMap, logprobs: Float[Array, "B K V"], eos_id: int, length_norm_alpha: float
) -> NestedMap:
    """Adds a token to each beginning, and keeps the best ones."""
    beam_size = state.hyp_scores.shape[1]
    new = NestedMap(state)
    new.step = state.step + 1

    scores = state.hyp_scores + logprobs[..., eos_id]
    scores = jnp.where(
        state.hyp_scores <= NO_SCORE / 2,
        NO_SCORE,
        scores / length_norm(new.step, length_norm_alpha),
    )
    ids = get_final_output_ids(state.beam_mask, state.output_ids)
    ends = jnp.full((*ids.shape[:2], 1), eos_id, jnp.int32)
    ids = lax.dynamic_update_slice_in_dim(ids, ends, new.step, axis=2)
    lengths = jnp.full(ids.shape[:2], new.step + 1)
    new.end_ids, new.end_decode_lengths, new.end_scores_norm = update_topk_scores_with_eos(
        (state.end_ids, state.end_decode_lengths, state.end_scores_norm), (ids, lengths, scores)
    )

    tokens_per_beam = min(beam_size, logprobs.shape[-1])
    _, long_ids, new.hyp_scores, best = two_stage_topk(
        logprobs, state.hyp_scores, [eos_id], tokens_per_beam
    )
    new.beam_mask = update_beam_mask(state.beam_mask, best // tokens_per_beam, new.step)
    new.output_ids = lax.dynamic_update_slice_in_dim(
        state.output_ids,
        gather_output_id(long_ids, best).astype(jnp.int32),
        new.step * beam_size,
        axis=1,
    )
    return new


# The two searches merge ended texts in the same way.
update_topk_scores_with_eos = update_global_beam

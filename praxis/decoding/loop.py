"""The loop that generates token after token."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding import best_end, candidates, guidance
from praxis.decoding.callback import StreamingResultCallback, maybe_report
from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.samplers import BaseNextTokenSampler
from praxis.decoding.samples_axis import NO_LOGPROB
from praxis.decoding.stop import end_with_sequences, has_any_eos

NestedMap = py_utils.NestedMap


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """What does not change from step to step. Shapes: N is batch times samples.

    Attributes:
      extend_step_fn: (model, ids [N], segment_pos [N], state) -> logits [N, V].
      next_token_sampler: What chooses tokens.
      sampler_kwargs: Further arguments of it, each [N] or [N, ...].
      temperature: Of all rows, or [N].
      prefix_ids: [N, P].
      prefix_lengths: [N].
      max_prefix_len: Width of prefixes that are aligned to the right and in the caches already;
        None: the loop feeds the prefixes, which are at the front.
      eos_id: Tokens that end a text; or one stop sequence for each row, [N, L].
      max_steps: Most tokens to generate.
      per_example_max_steps: [N], likewise; None: no further limit.
      min_steps: Tokens to generate before a text may end.
      use_sampler_logprobs: Report the log-probabilities of the sampler.
      with_entropy: Report the entropy of the model's distribution at each token, in nats.
      constraint: What else ends texts.
      enforce_constraint: [N, ...], its first argument.
      guidance_scale: [B / 2, n], scales of guidance, where rows come in pairs; None: none.
      num_candidates: [N], likeliest tokens to report at each step; None: not even their places.
      optimize_eos: Draw no end-of-text tokens; report their log-probabilities.
      callback: What to do with new tokens while the loop runs.
      num_samples: n, for the callback.
    """

    extend_step_fn: Callable[..., Any]
    next_token_sampler: BaseNextTokenSampler | Callable[..., NestedMap]
    sampler_kwargs: dict[str, Any]
    temperature: Any
    prefix_ids: Int[Array, "N P"]
    prefix_lengths: Int[Array, " N"]
    max_prefix_len: int | None
    eos_id: Any
    max_steps: int
    per_example_max_steps: Int[Array, " N"] | None = None
    min_steps: int = 0
    use_sampler_logprobs: bool = False
    with_entropy: bool = False
    constraint: BaseSampleTerminationConstraint | None = None
    enforce_constraint: Shaped[Array, "..."] | None = None
    guidance_scale: Float[Array, "pairs n"] | None = None
    num_candidates: Int[Array, " N"] | None = None
    optimize_eos: bool = False
    callback: StreamingResultCallback | None = None
    num_samples: int = 1

    @property
    def prefix_ends(self) -> Int[Array, " N"]:
        """Where the first generated token of each row goes."""
        if self.max_prefix_len is None:
            return self.prefix_lengths
        return jnp.full_like(self.prefix_lengths, self.max_prefix_len)


def initial_state(model: Any, settings: LoopSettings, seq_len: int) -> NestedMap:
    """The state before the first step.

    Args:
      model: The model.
      settings: The settings.
      seq_len: S, prefix and continuation.

    Returns:
      A NestedMap of
      - step: [], of the last token that is known; the next one goes behind it
      - start_step: [], the first step
      - segment_pos: [N], position of that token in its text
      - output_ids: [N, S]
      - logprobs: [N, S], float32, 1 where no token was chosen
      - done: [N], whether the text has ended
      - has_eos: [N], whether an end-of-text token ended it
      - decode_lengths: [N], tokens of prefix and continuation, with the end-of-text token
      - prefix_ends: [N], where the first generated token of each row goes
      - entropy: [N, S], with `with_entropy`
      - eos_logprobs, eos_ids: [N, S], with `optimize_eos`: of an end of the text at each place
      - top_candidate_ids, top_candidate_logprobs: [N, S, 5], with `num_candidates`
      and what the sampler adds.
    """
    batch = settings.prefix_lengths.shape[0]
    output_ids = jnp.zeros((batch, seq_len), jnp.int32)
    if settings.max_prefix_len is None:
        known, start, segment_pos = 1, 0, jnp.zeros_like(settings.prefix_lengths)
    else:
        known, start = settings.max_prefix_len, settings.max_prefix_len - 1
        segment_pos = jnp.maximum(settings.prefix_lengths - 1, 0)
    output_ids = output_ids.at[:, :known].set(settings.prefix_ids[:, :known])
    state = NestedMap(
        step=jnp.asarray(start, jnp.int32),
        start_step=jnp.asarray(start, jnp.int32),
        segment_pos=segment_pos.astype(jnp.int32),
        output_ids=output_ids,
        logprobs=jnp.full((batch, seq_len), NO_LOGPROB, jnp.float32),
        done=jnp.zeros((batch,), jnp.bool),
        has_eos=jnp.zeros((batch,), jnp.bool),
        decode_lengths=jnp.full((batch,), seq_len, jnp.int32),
        prefix_ends=settings.prefix_ends.astype(jnp.int32),
    )
    if settings.with_entropy:
        state.entropy = jnp.zeros((batch, seq_len), jnp.float32)
    if settings.optimize_eos:
        state.eos_logprobs = jnp.full((batch, seq_len), NO_LOGPROB, jnp.float32)
        state.eos_ids = jnp.zeros((batch, seq_len), jnp.int32)
    if settings.num_candidates is not None:
        state.update(candidates.initial(batch, seq_len))
    if isinstance(settings.next_token_sampler, BaseNextTokenSampler):
        state = settings.next_token_sampler.init_decode_loop_state(
            state, model, batch, settings.eos_id
        )
    return state


def run_until(
    model: Any, settings: LoopSettings, state: NestedMap, last_step: int | Int[Array, ""]
) -> NestedMap:
    """Generates until all texts have ended or `last_step` is reached.

    The caches are carried by the loop, which changes them in place.
    """

    def unfinished(_: Any, state: NestedMap) -> Any:
        return (state.step < last_step) & ~jnp.all(state.done)

    def body(model: Any, state: NestedMap) -> NestedMap:
        return next_state(model, settings, state)

    return nn.while_loop(
        unfinished,
        body,
        model,
        state,
        carry_variables=base_layer.DECODE_CACHE,
        split_rngs={base_layer.RANDOM: True},
    )


def run_steps(model: Any, settings: LoopSettings, state: NestedMap, num_steps: int) -> NestedMap:
    """Generates a fixed number of steps; the summaries of all steps are stacked."""

    def body(model: Any, state: NestedMap, _: None) -> tuple[NestedMap, None]:
        model.add_summary("time_step", state.step)
        state = next_state(model, settings, state)
        model.add_summary("new_ids", state.output_ids[:, state.step])
        return state, None

    scan = nn.scan(
        body,
        variable_broadcast=[
            base_layer.PARAMS,
            base_layer.NON_TRAINABLE,
            base_layer.PREFIX_DECODE_CACHE,
        ],
        variable_carry=base_layer.DECODE_CACHE,
        variable_axes={base_layer.SUMMARIES: 0},
        split_rngs={base_layer.RANDOM: True},
        length=num_steps,
    )
    return scan(model, state, None)[0]


def next_state(model: Any, settings: LoopSettings, state: NestedMap) -> NestedMap:
    """Generates one token of each text."""
    step = state.step
    ids = lax.dynamic_index_in_dim(state.output_ids, step, axis=1, keepdims=False)
    logits = settings.extend_step_fn(model, ids, state.segment_pos, state)
    if settings.guidance_scale is not None:
        logits = guidance.mix(logits, settings.guidance_scale)
    model.add_summary("sample_logits", logits)
    num_generated = step + 2 - state.prefix_ends  # [N], with the token that is chosen now
    in_prefix = num_generated <= 0

    allowed = _without_forbidden_eos(logits, settings, num_generated)
    chosen = settings.next_token_sampler(
        model, allowed, settings.temperature, state, **settings.sampler_kwargs
    )
    if settings.guidance_scale is not None:
        for name in ("new_ids", "logprobs_at_new_ids"):
            if name in chosen:
                chosen[name] = guidance.copy_to_pairs(chosen[name], settings.guidance_scale)
    new_ids = chosen.new_ids.astype(jnp.int32)
    if settings.max_prefix_len is None:
        new_ids = jnp.where(in_prefix, _prefix_column(settings.prefix_ids, step + 1), new_ids)
    new_ids = jnp.where(state.done, 0, new_ids)

    new = NestedMap(state)
    for name, value in chosen.items():
        if name in new:
            new[name] = value
    new.step = step + 1
    new.segment_pos = state.segment_pos + 1
    new.output_ids = _write_column(state.output_ids, new_ids, step + 1)
    _record_scores(settings, state, new, logits, chosen, new_ids)
    _record_ends(settings, state, new, new_ids, num_generated)
    if settings.callback is not None:
        is_last = new.step >= new.output_ids.shape[1] - 1
        maybe_report(
            settings.callback,
            new,
            prefix_lengths=settings.prefix_lengths,
            num_samples=settings.num_samples,
            is_last=is_last,
        )
    return new


def _record_scores(
    settings: LoopSettings,
    state: NestedMap,
    new: NestedMap,
    logits: Float[Array, "N V"],
    chosen: NestedMap,
    new_ids: Int[Array, " N"],
) -> None:
    """Writes what is reported of the new tokens, from `state` to `new`."""
    if settings.use_sampler_logprobs and "logprobs_at_new_ids" in chosen:
        logprobs = chosen.logprobs_at_new_ids.astype(jnp.float32)
    else:
        logprobs = logprobs_of(logits, new_ids)
    logprobs = jnp.where(state.done, NO_LOGPROB, logprobs)
    new.logprobs = _write_column(state.logprobs, logprobs, new.step)
    if settings.with_entropy:
        entropy = jnp.where(state.done, 0.0, _entropy(logits))
        new.entropy = _write_column(state.entropy, entropy, new.step)
    if settings.num_candidates is not None:
        step = state.step - state.start_step
        new.update(candidates.record(state, logits, settings.num_candidates, state.done, step))
    if settings.optimize_eos:
        may_end = ~state.done & (new.step + 1 - state.prefix_ends > settings.min_steps)
        of_eos, eos_ids = best_end.eos_logprobs(logits, settings.eos_id, may_end)
        new.eos_logprobs = _write_column(state.eos_logprobs, of_eos, new.step)
        new.eos_ids = _write_column(state.eos_ids, eos_ids, new.step)


def _record_ends(
    settings: LoopSettings,
    state: NestedMap,
    new: NestedMap,
    new_ids: Int[Array, " N"],
    num_generated: Int[Array, " N"],
) -> None:
    """Writes which texts end with the new tokens, from `state` to `new`."""
    ended = _ends(settings, new.output_ids, new_ids, new.step)
    ended &= (num_generated > jnp.maximum(settings.min_steps, 0)) & ~state.done
    new.has_eos = state.has_eos | ended
    limit = jnp.full_like(num_generated, settings.max_steps)
    if settings.per_example_max_steps is not None:
        limit = jnp.minimum(limit, settings.per_example_max_steps)
    new.done = state.done | ended | (num_generated >= limit)
    if settings.constraint is not None and settings.enforce_constraint is not None:
        new.done = settings.constraint(settings.enforce_constraint, new)
    length = settings.prefix_lengths + num_generated
    new.decode_lengths = jnp.where(new.done & ~state.done, length, state.decode_lengths)


def _prefix_column(prefix_ids: Int[Array, "N P"], step: Int[Array, ""]) -> Int[Array, " N"]:
    """The tokens of the prefixes at a step, or the last ones if there are none."""
    step = jnp.minimum(step, prefix_ids.shape[1] - 1)
    column = lax.dynamic_index_in_dim(prefix_ids, step, axis=1, keepdims=False)
    return column.astype(jnp.int32)


def _write_column(
    x: Shaped[Array, "N S"], column: Shaped[Array, " N"], step: Int[Array, ""]
) -> Shaped[Array, "N S"]:
    return lax.dynamic_update_slice_in_dim(x, column[:, jnp.newaxis].astype(x.dtype), step, axis=1)


def logprobs_of(logits: Float[Array, "N V"], ids: Int[Array, " N"]) -> Float[Array, " N"]:
    """Log-probabilities of tokens, float32."""
    wide = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(wide, ids[:, jnp.newaxis], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(wide, axis=-1)


def _entropy(logits: Float[Array, "N V"]) -> Float[Array, " N"]:
    """Entropy of the distribution, nats, float32."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def is_stop_sequences(eos_id: int | Sequence[int] | Shaped[Array, "..."] | None) -> bool:
    """Whether there is a stop sequence for each row, not tokens for all."""
    return hasattr(eos_id, "ndim") and eos_id.ndim == 2  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue]


def _without_forbidden_eos(
    logits: Float[Array, "N V"], settings: LoopSettings, num_generated: Int[Array, " N"]
) -> Float[Array, "N V"]:
    """Hides end-of-text tokens from the sampler where texts must not end."""
    if settings.optimize_eos:
        return best_end.without_eos(logits, settings.eos_id)
    if settings.min_steps <= 0 or settings.eos_id is None or is_stop_sequences(settings.eos_id):
        return logits
    too_early = (num_generated <= settings.min_steps)[:, jnp.newaxis]
    return jnp.where(too_early, best_end.without_eos(logits, settings.eos_id), logits)


def _ends(
    settings: LoopSettings,
    output_ids: Int[Array, "N S"],
    new_ids: Int[Array, " N"],
    step: Int[Array, ""],
) -> Bool[Array, " N"]:
    """Whether the new token ends each text."""
    if settings.eos_id is None:
        return jnp.zeros(new_ids.shape, jnp.bool)
    if is_stop_sequences(settings.eos_id):
        return end_with_sequences(settings.eos_id, output_ids, step)
    return has_any_eos(new_ids, settings.eos_id)

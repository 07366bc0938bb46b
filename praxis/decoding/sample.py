"""Generation of samples, or of the most likely tokens, with a model that keeps a cache."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis import py_utils
from praxis.decoding import loop, prefix
from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.extend import coerce_to_expanded_extend_step_fn
from praxis.decoding.samplers import DUMMY_PRNG_KEY, BaseNextTokenSampler, DefaultNextTokenSampler
from praxis.decoding.samples_axis import sort_samples_by_scores, split_batch_dim
from praxis.decoding.state import batch_broadcast_state_fn, left_align_tensor, pad_state_fn

NestedMap = py_utils.NestedMap
DecodeSteps = int | Sequence[int] | None

# Entries of the state of the loop that are no results.
INTERNAL = ("step", "start_step", "segment_pos", "done", "has_eos")


def greedy_decode(
    model: Any,
    extend_step_fn: Callable[..., Any],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    seq_len: int,
    fprop_for_prefix: bool = False,
    fprop_fn: Callable[..., Any] | None = None,
    transform_state_fn: Callable[..., Any] | None = None,
    max_prefix_len: int | None = None,
    max_decode_steps: DecodeSteps = None,
    prefix_lengths: Int[Array, " B"] | None = None,
    decode_loop_mesh_axes_transpose: dict[str, str] | None = None,
    model_var_pspecs: Any = None,
    eos_id: int | Sequence[int] | Shaped[Array, "..."] | None = None,
    process_result_fn: Callable[..., Any] | None = None,
    min_decode_steps: int = 0,
) -> NestedMap:
    """Takes the most likely token each time; arguments and results as in `sample_decode`."""
    return sample_decode(
        model,
        extend_step_fn,
        transform_state_fn,
        None,
        DefaultNextTokenSampler(top_k=1),
        prefix_ids,
        prefix_paddings,
        seq_len,
        num_samples=1,
        fprop_fn=fprop_fn,
        fprop_for_prefix=fprop_for_prefix,
        temperature=0.0,
        max_prefix_len=max_prefix_len,
        max_decode_steps=max_decode_steps,
        prefix_lengths=prefix_lengths,
        eos_id=eos_id,
        decode_loop_mesh_axes_transpose=decode_loop_mesh_axes_transpose,
        model_var_pspecs=model_var_pspecs,
        process_result_fn=process_result_fn,
        min_decode_steps=min_decode_steps,
    )


def sample_decode(
    model: Any,
    extend_step_fn: Callable[..., Any],
    transform_state_fn: Callable[..., Any] | None,
    lazy_broadcast_prefix_fn: Callable[..., Any] | None,
    next_token_sampler: Callable[..., NestedMap],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    seq_len: int,
    num_samples: int,
    fprop_fn: Callable[..., Any] | None = None,
    cf_guidance_scale: Any = None,
    fprop_for_prefix: bool = False,
    temperature: float | Shaped[Array, "..."] | None = 1.0,
    gumbel_prng_key: Shaped[Array, "..."] | None = None,
    per_example_top_p: Shaped[Array, "..."] | None = None,
    per_example_top_k: Shaped[Array, "..."] | None = None,
    max_prefix_len: int | None = None,
    max_decode_steps: DecodeSteps = None,
    per_example_max_decode_steps: Shaped[Array, "..."] | None = None,
    prefix_lengths: Int[Array, " B"] | None = None,
    eos_id: int | Sequence[int] | Shaped[Array, "..."] | None = None,
    result_callback: Any = None,
    decode_loop_mesh_axes_transpose: dict[str, str] | None = None,
    model_var_pspecs: Any = None,
    return_result_for_suffix_score: bool = False,
    sort_samples: bool | None = True,
    top_k_recall_target: float = 0.85,
    early_exit: bool = True,
    use_top_k_for_logprobs: bool = False,
    controlled_decoding: Any = None,
    return_entropy_score: bool = False,
    process_result_fn: Callable[..., Any] | None = None,
    optimize_eos: bool = False,
    sample_constraint: BaseSampleTerminationConstraint | None = None,
    enforce_sample_constraints: Shaped[Array, "..."] | None = None,
    num_per_token_logprobs: Shaped[Array, "..."] | None = None,
    min_decode_steps: int = 0,
) -> NestedMap:
    """Draws continuations of prefixes.

    Shapes: B rows, P width of the prefixes, n samples, S `seq_len`.

    Args:
      model: The model, a layer inside `apply` with the decode cache mutable.
      extend_step_fn: (model, ids [N], segment_pos [N]) -> logits [N, V], with N = B or B * n, which
        adds a token to the caches.
      transform_state_fn: (model, fn), which replaces the caches by `fn(x, batch_dim, time_dim)`.
      lazy_broadcast_prefix_fn: Not built yet; has to be None.
      next_token_sampler: A `BaseNextTokenSampler`.
      prefix_ids: [B, P], tokens; with `fprop_for_prefix` aligned to the right in the first
        `max_prefix_len` columns.
      prefix_paddings: [B, P], 1 marks padding.
      seq_len: S, the width of the results.
      num_samples: n, continuations of each prefix.
      fprop_fn: (model, prefix_ids, prefix_paddings), which fills the caches.
      cf_guidance_scale: Not built yet; has to be None.
      fprop_for_prefix: `fprop_fn` fills the caches with the prefixes. False: it makes caches of
        length 1, and the loop feeds the prefixes.
      temperature: Factor of the noise, of all, or [B], or [B, n].
      gumbel_prng_key: A seed [B] or a key [B, 2] for each row, see `DefaultNextTokenSampler`.
      per_example_top_p: [B].
      per_example_top_k: [B].
      max_prefix_len: Width of the prefixes; None: P.
      max_decode_steps: Most tokens to generate; an increasing list runs one loop for each entry,
        with larger caches each time. None: S.
      per_example_max_decode_steps: [B], likewise.
      prefix_lengths: [B]; None takes them from the paddings.
      eos_id: Token or tokens that end a text, or a stop sequence for each row, [B, L], padded with
        zeros at the front.
      result_callback: Not built yet; has to be None.
      decode_loop_mesh_axes_transpose: Not built yet; has to be None.
      model_var_pspecs: Only for `decode_loop_mesh_axes_transpose`.
      return_result_for_suffix_score: Return the state of the loop, see `loop.initial_state`.
      sort_samples: Sort samples by falling log-probability.
      top_k_recall_target: Below 1, sort approximately.
      early_exit: Stop when all texts have ended; False runs all steps and stacks summaries.
      use_top_k_for_logprobs: Report the log-probabilities of the sampler.
      controlled_decoding: Not built yet; has to be None.
      return_entropy_score: Report `entropy` too.
      process_result_fn: Applied to (model, results) at the end.
      optimize_eos: Not built yet; has to be False.
      sample_constraint: What else ends texts.
      enforce_sample_constraints: [B, ...], its first argument.
      num_per_token_logprobs: Not built yet; has to be None.
      min_decode_steps: Tokens to generate before a text may end.

    Returns:
      A NestedMap of
      - output_ids: [B, n, S], prefix, continuation with its end-of-text token, zeros
      - decode_lengths: [B, n], tokens of prefix and continuation
      - logprobs: [B, n, S], float32, of the chosen tokens; 1 where none was chosen, except that
        with `fprop_for_prefix` the last P - length places are 0
      - prefix_ids: [B, n, P], zeros behind the prefix
      - prefix_lengths, original_lengths: [B, n]
      - entropy: [B, n, S], with `return_entropy_score`, nats

    Raises:
      ValueError: if arguments do not go together.
      NotImplementedError: for what is not built yet.
    """
    _refuse_unbuilt(
        decode_loop_mesh_axes_transpose=decode_loop_mesh_axes_transpose,
        lazy_broadcast_prefix_fn=lazy_broadcast_prefix_fn,
    )
    longest_steps = decode_steps(max_decode_steps, seq_len)
    if fprop_fn is None or transform_state_fn is None:
        raise ValueError(
            "sample_decode: fprop_fn and transform_state_fn are needed to make the caches, got "
            f"{fprop_fn} and {transform_state_fn}."
        )
    fprop_fn(model, prefix_ids, prefix_paddings)
    room = longest_steps[0] if fprop_for_prefix else seq_len - 1
    transform_state_fn(model, pad_state_fn(room))
    result = sample_decode_after_fprop(
        model,
        extend_step_fn,
        transform_state_fn,
        lazy_broadcast_prefix_fn,
        next_token_sampler,
        prefix_ids,
        prefix_paddings,
        seq_len,
        num_samples,
        cf_guidance_scale=cf_guidance_scale,
        fprop_for_prefix=fprop_for_prefix,
        temperature=temperature,
        gumbel_prng_key=gumbel_prng_key,
        per_example_top_p=per_example_top_p,
        per_example_top_k=per_example_top_k,
        max_prefix_len=max_prefix_len,
        max_decode_steps=max_decode_steps,
        per_example_max_decode_steps=per_example_max_decode_steps,
        prefix_lengths=prefix_lengths,
        eos_id=eos_id,
        result_callback=result_callback,
        return_result_for_suffix_score=return_result_for_suffix_score,
        sort_samples=sort_samples,
        top_k_recall_target=top_k_recall_target,
        early_exit=early_exit,
        use_top_k_for_logprobs=use_top_k_for_logprobs,
        controlled_decoding=controlled_decoding,
        return_entropy_score=return_entropy_score,
        optimize_eos=optimize_eos,
        sample_constraint=sample_constraint,
        enforce_sample_constraints=enforce_sample_constraints,
        num_per_token_logprobs=num_per_token_logprobs,
        min_decode_steps=min_decode_steps,
    )
    return result if process_result_fn is None else process_result_fn(model, result)


def decode_steps(max_decode_steps: DecodeSteps, seq_len: int) -> list[int]:
    """The numbers of tokens to generate after which caches grow; the last is the limit.

    Raises:
      ValueError: if they are not positive and increasing.
    """
    if max_decode_steps is None:
        return [seq_len]
    steps = [max_decode_steps] if isinstance(max_decode_steps, int) else list(max_decode_steps)
    if not steps or steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(
            f"sample_decode: max_decode_steps is {max_decode_steps}, expected at least 1 token, or "
            "an increasing list of such numbers."
        )
    return steps


def _refuse_unbuilt(**settings: Any) -> None:
    for name, value in settings.items():
        if value is not None and value is not False:
            raise NotImplementedError(
                f"sample_decode: {name} = {value!r} is not built yet. Leave it at its default."
            )


def sample_decode_after_fprop(
    model: Any,
    extend_step_fn: Callable[..., Any],
    transform_state_fn: Callable[..., Any],
    lazy_broadcast_prefix_fn: Callable[..., Any] | None,
    next_token_sampler: Callable[..., NestedMap],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    seq_len: int,
    num_samples: int,
    cf_guidance_scale: Any = None,
    fprop_for_prefix: bool = False,
    temperature: float | Shaped[Array, "..."] | None = 1.0,
    gumbel_prng_key: Shaped[Array, "..."] | None = None,
    per_example_top_p: Shaped[Array, "..."] | None = None,
    per_example_top_k: Shaped[Array, "..."] | None = None,
    max_prefix_len: int | None = None,
    max_decode_steps: DecodeSteps = None,
    per_example_max_decode_steps: Shaped[Array, "..."] | None = None,
    prefix_lengths: Int[Array, " B"] | None = None,
    eos_id: int | Sequence[int] | Shaped[Array, "..."] | None = None,
    result_callback: Any = None,
    return_result_for_suffix_score: bool = False,
    sort_samples: bool | None = True,
    top_k_recall_target: float = 0.85,
    early_exit: bool = True,
    use_top_k_for_logprobs: bool = False,
    controlled_decoding: Any = None,
    return_entropy_score: bool = False,
    optimize_eos: bool = False,
    sample_constraint: BaseSampleTerminationConstraint | None = None,
    enforce_sample_constraints: Shaped[Array, "..."] | None = None,
    num_per_token_logprobs: Shaped[Array, "..."] | None = None,
    min_decode_steps: int = 0,
) -> NestedMap:
    """As `sample_decode`, where the caches are filled and have room for the first steps."""
    _refuse_unbuilt(
        cf_guidance_scale=cf_guidance_scale,
        lazy_broadcast_prefix_fn=lazy_broadcast_prefix_fn,
        result_callback=result_callback,
        controlled_decoding=controlled_decoding,
        optimize_eos=optimize_eos,
        num_per_token_logprobs=num_per_token_logprobs,
    )
    if (sample_constraint is None) != (enforce_sample_constraints is None):
        raise ValueError(
            "sample_decode: sample_constraint and enforce_sample_constraints go together, got "
            f"{sample_constraint} and {enforce_sample_constraints}."
        )
    original_lengths = jnp.sum((prefix_paddings == 0).astype(jnp.int32), axis=1)
    if prefix_lengths is None:
        prefix_lengths = original_lengths
    max_prefix_len = prefix_ids.shape[1] if max_prefix_len is None else max_prefix_len
    steps = decode_steps(max_decode_steps, seq_len)
    repeat = Repeater(prefix_ids.shape[0], num_samples)
    settings = loop.LoopSettings(
        extend_step_fn=coerce_to_expanded_extend_step_fn(extend_step_fn),
        next_token_sampler=next_token_sampler,
        sampler_kwargs=repeat.given(
            per_example_top_p=per_example_top_p,
            per_example_top_k=per_example_top_k,
            gumbel_prng_key=repeat.seeds(gumbel_prng_key),
        ),
        temperature=repeat.temperature(temperature),
        prefix_ids=repeat("prefix_ids", prefix_ids),
        prefix_lengths=repeat("prefix_lengths", prefix_lengths),
        max_prefix_len=max_prefix_len if fprop_for_prefix else None,
        eos_id=repeat("eos_id", eos_id) if loop.is_stop_sequences(eos_id) else eos_id,
        max_steps=steps[-1],
        per_example_max_steps=repeat("per_example_max_decode_steps", per_example_max_decode_steps),
        min_steps=min_decode_steps,
        use_sampler_logprobs=use_top_k_for_logprobs,
        with_entropy=return_entropy_score,
        constraint=sample_constraint,
        enforce_constraint=repeat("enforce_sample_constraints", enforce_sample_constraints),
    )
    if num_samples > 1:
        transform_state_fn(model, batch_broadcast_state_fn(num_samples))
    state = loop.initial_state(model, settings, seq_len)
    state = _run(model, settings, state, transform_state_fn, steps, seq_len, early_exit)
    if isinstance(next_token_sampler, BaseNextTokenSampler):
        state = next_token_sampler.post_process_decode_loop_state(state)
    if return_result_for_suffix_score:
        return state
    result = _result(state, settings, repeat("prefix_lengths", original_lengths))
    result = result.Transform(lambda x: split_batch_dim(x, 0, num_samples))
    if num_samples > 1 and sort_samples:
        result = sort_samples_by_scores(result, top_k_recall_target)
    return result


class Repeater:
    """Repeats what belongs to a row for each of its samples, so that these are neighbours."""

    def __init__(self, batch: int, num_samples: int) -> None:
        """For `batch` rows and `num_samples` of each."""
        self.batch = batch
        self.num_samples = num_samples

    def __call__(self, name: str, x: Any) -> Any:
        """Repeats [B, ...] to [B * n, ...]; None stays None.

        Raises:
          ValueError: if the first axis is not B.
        """
        if x is None:
            return None
        x = jnp.asarray(x)
        if x.ndim < 1 or x.shape[0] != self.batch:
            raise ValueError(
                f"sample_decode: {name} has shape {x.shape}, expected one entry for each of the "
                f"{self.batch} rows of the batch."
            )
        return jnp.repeat(x, self.num_samples, axis=0)

    def given(self, **values: Any) -> dict[str, Any]:
        """Repeats those of the values that are not None."""
        return {
            name: value if name == "gumbel_prng_key" else self(name, value)
            for name, value in values.items()
            if value is not None
        }

    def temperature(self, value: Any) -> Any:
        """A number as it is; [B] and [B, n] as [B * n]."""
        if value is None or isinstance(value, int | float):
            return value
        value = jnp.asarray(value)
        if value.ndim == 0:
            return value
        if value.ndim == 2 and value.shape == (self.batch, self.num_samples):
            return value.reshape(-1)
        return self("temperature", value.reshape(-1) if value.shape[1:] == (1,) else value)

    def seeds(self, value: Any) -> Any:
        """A seed [B] or a key [B, 2] of each row, different for each of its samples."""
        repeated = self("gumbel_prng_key", value)
        if repeated is None or self.num_samples == 1:
            return repeated
        sample = jnp.tile(jnp.arange(self.num_samples, dtype=jnp.uint32), self.batch)
        sample = sample.reshape(-1, *(1,) * (repeated.ndim - 1))
        # An odd factor, so that the seeds of neighbouring rows do not meet. Dummies stay dummies.
        varied = repeated.astype(jnp.uint32) + sample * jnp.uint32(0x9E3779B1)
        return jnp.where(jnp.all(repeated == DUMMY_PRNG_KEY), DUMMY_PRNG_KEY, varied)


def _run(
    model: Any,
    settings: loop.LoopSettings,
    state: NestedMap,
    transform_state_fn: Callable[..., Any],
    steps: list[int],
    seq_len: int,
    early_exit: bool,
) -> NestedMap:
    """Runs the loop; with several `steps`, one loop for each, with growing caches."""
    if settings.max_prefix_len is None:
        if not early_exit:
            return loop.run_steps(model, settings, state, seq_len - 1)
        return loop.run_until(model, settings, state, seq_len - 1)
    if not early_exit:
        transform_state_fn(model, pad_state_fn(steps[-1] - steps[0]))
        return loop.run_steps(model, settings, state, seq_len - settings.max_prefix_len)
    for index, limit in enumerate(steps):
        if index:
            transform_state_fn(model, pad_state_fn(limit - steps[index - 1]))
        last_step = min(seq_len - 1, settings.max_prefix_len - 1 + limit)
        state = loop.run_until(model, settings, state, last_step)
    return state


def _result(
    state: NestedMap, settings: loop.LoopSettings, original_lengths: Int[Array, " N"]
) -> NestedMap:
    """The results with rows [N], aligned to the left."""
    result = NestedMap({name: x for name, x in state.items() if name not in INTERNAL})
    result.prefix_ids = settings.prefix_ids
    if settings.max_prefix_len is not None:
        for name in ("output_ids", "logprobs", "prefix_ids", "entropy"):
            if name in result:
                result[name] = left_align_tensor(
                    result[name], settings.prefix_lengths, settings.max_prefix_len
                )
    result.prefix_ids = prefix.left_aligned(result.prefix_ids, settings.prefix_lengths)
    result.prefix_lengths = settings.prefix_lengths
    result.original_lengths = original_lengths
    return result

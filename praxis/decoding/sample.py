"""Generation of samples, or of the most likely tokens, with a model that keeps a cache."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding import best_end, blocks, caches, guidance, loop, mesh, prefix
from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.extend import coerce_to_expanded_extend_step_fn
from praxis.decoding.repeater import Repeater
from praxis.decoding.samplers import BaseNextTokenSampler, DefaultNextTokenSampler
from praxis.decoding.samples_axis import sort_samples_by_scores, split_batch_dim
from praxis.decoding.settings import SampleSettings
from praxis.decoding.state import batch_broadcast_state_fn, left_align_tensor, pad_state_fn
from praxis.decoding.steps import DecodeSteps

NestedMap = py_utils.NestedMap

# Entries of the state of the loop that are no results.
INTERNAL = ("step", "start_step", "segment_pos", "done", "has_eos", "prefix_ends")


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
      lazy_broadcast_prefix_fn: (model, n, steps): samples share the caches of their prefix, with
        `fprop_for_prefix`. None repeats these.
      next_token_sampler: A `BaseNextTokenSampler`.
      prefix_ids: [B, P], tokens; with `fprop_for_prefix` aligned to the right in the first
        `max_prefix_len` columns.
      prefix_paddings: [B, P], 1 marks padding.
      seq_len: S, the width of the results.
      num_samples: n, continuations of each prefix.
      fprop_fn: (model, prefix_ids, prefix_paddings), which fills the caches.
      cf_guidance_scale: Scale of classifier-free guidance: a number, a list [n], or an array
        [B / 2] or [B / 2, n]. Rows then come in pairs, with the condition and without, and what is
        given by row is given by pair. None: no guidance.
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
      result_callback: A `StreamingResultCallback`.
      decode_loop_mesh_axes_transpose: Real mesh axis by the annotated one, in the loop.
      model_var_pspecs: PartitionSpecs of the parameters, for `decode_loop_mesh_axes_transpose`.
      return_result_for_suffix_score: Return the state of the loop, see `loop.initial_state`.
      sort_samples: Sort samples by falling log-probability.
      top_k_recall_target: Below 1, sort approximately.
      early_exit: Stop when all texts have ended; False runs all steps and stacks summaries.
      use_top_k_for_logprobs: Report the log-probabilities of the sampler.
      controlled_decoding: `ControlledDecodingHParams`: of each block of tokens, several are drawn,
        and the likeliest one goes on. None: no blocks.
      return_entropy_score: Report `entropy` too.
      process_result_fn: Applied to (model, results) at the end.
      optimize_eos: Generate without end-of-text tokens, and end each text where it is likeliest.
      sample_constraint: What else ends texts.
      enforce_sample_constraints: [B, ...], its first argument.
      num_per_token_logprobs: [B], likeliest tokens to report for each token, at most 5.
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
      - top_candidate_ids, top_candidate_logprobs: [B, n, S, 5], with `num_per_token_logprobs`, by
        number of the generated token, not by place; id 0 and 1 where there is none
      With guidance these are the results of the rows with the condition, [B / 2, n, ...].

    Raises:
      ValueError: if arguments do not go together.
    """
    if fprop_fn is None or transform_state_fn is None:
        raise ValueError(
            "sample_decode: fprop_fn and transform_state_fn are needed to make the caches, got "
            f"{fprop_fn} and {transform_state_fn}."
        )
    settings = SampleSettings.of(locals())
    fprop_fn(model, prefix_ids, prefix_paddings)
    with mesh.maybe_decode_mesh_transpose(model, decode_loop_mesh_axes_transpose):
        model = mesh.maybe_reshard_mdl_for_decode(
            model, decode_loop_mesh_axes_transpose, model_var_pspecs, transform_state_fn
        )
        if lazy_broadcast_prefix_fn is None:
            transform_state_fn(model, pad_state_fn(settings.room))
        result = _sample(model, settings)
    return result if process_result_fn is None else process_result_fn(model, result)


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
    """As `sample_decode`, where the caches are filled with the prefixes.

    Without `lazy_broadcast_prefix_fn` they have room for the first steps too.
    """
    return _sample(model, SampleSettings.of(locals()))


def default_settings(**arguments: Any) -> SampleSettings:
    """The settings with the given arguments of `sample_decode`, and the defaults of the others."""
    parameters = inspect.signature(sample_decode_after_fprop).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return SampleSettings.of(defaults | arguments)


def _sample(model: Any, settings: SampleSettings) -> NestedMap:
    """Repeats the caches of the prefixes for their samples, and runs the loop."""
    repeat = Repeater(
        settings.prefix_ids.shape[0],
        settings.copies,
        pairs=settings.cf_guidance_scale is not None,
    )
    loop_settings = settings_of_loop(settings, repeat)
    if settings.lazy_broadcast_prefix_fn is not None:
        caches.share_prefix(
            model,
            settings.transform_state_fn,
            settings.lazy_broadcast_prefix_fn,
            copies=settings.copies,
            room=settings.steps[0],
        )
    elif settings.copies > 1:
        settings.transform_state_fn(model, batch_broadcast_state_fn(settings.copies))
    state = loop.initial_state(model, loop_settings, settings.seq_len)
    callback = settings.result_callback
    if callback is not None and callback.init_fn is not None:
        callback.init_fn((repeat.rows, settings.copies))
    state = _run(model, settings, loop_settings, state)
    if callback is not None and callback.done_fn is not None:
        callback.done_fn()
    if isinstance(settings.next_token_sampler, BaseNextTokenSampler):
        state = settings.next_token_sampler.post_process_decode_loop_state(state)
    if settings.return_result_for_suffix_score:
        return state
    return _result(state, settings, loop_settings, repeat)


def settings_of_loop(settings: SampleSettings, repeat: Repeater) -> loop.LoopSettings:
    """The settings of the loop, with everything repeated for the samples."""
    lengths = settings.prefix_lengths
    eos_id = settings.eos_id
    width = settings.prefix_ids.shape[1]
    scale = settings.cf_guidance_scale
    return loop.LoopSettings(
        extend_step_fn=coerce_to_expanded_extend_step_fn(settings.extend_step_fn),
        next_token_sampler=settings.next_token_sampler,
        sampler_kwargs=repeat.given(
            per_example_top_p=settings.per_example_top_p,
            per_example_top_k=settings.per_example_top_k,
        )
        | repeat.seeds(settings.gumbel_prng_key),
        temperature=repeat.temperature(settings.temperature),
        prefix_ids=repeat.rows_of("prefix_ids", settings.prefix_ids),
        prefix_lengths=repeat.rows_of(
            "prefix_lengths", settings.original_lengths if lengths is None else lengths
        ),
        max_prefix_len=(settings.max_prefix_len or width) if settings.fprop_for_prefix else None,
        eos_id=repeat("eos_id", eos_id) if loop.is_stop_sequences(eos_id) else eos_id,
        max_steps=settings.steps[-1],
        per_example_max_steps=repeat(
            "per_example_max_decode_steps", settings.per_example_max_decode_steps
        ),
        min_steps=settings.min_decode_steps,
        use_sampler_logprobs=settings.use_top_k_for_logprobs,
        with_entropy=settings.return_entropy_score,
        constraint=settings.sample_constraint,
        enforce_constraint=repeat(
            "enforce_sample_constraints", settings.enforce_sample_constraints
        ),
        guidance_scale=None
        if scale is None
        else guidance.scale_of_samples(scale, repeat.batch, settings.copies),
        num_candidates=repeat("num_per_token_logprobs", settings.num_per_token_logprobs),
        optimize_eos=settings.optimize_eos,
        callback=settings.result_callback,
        num_samples=settings.copies,
    )


def _run(
    model: Any, settings: SampleSettings, loop_settings: loop.LoopSettings, state: NestedMap
) -> NestedMap:
    """Runs the loop; with several `steps`, one loop for each, with growing caches."""
    steps, seq_len = settings.steps, settings.seq_len
    transform_state_fn = settings.transform_state_fn
    max_prefix_len = loop_settings.max_prefix_len
    if max_prefix_len is None:
        if not settings.early_exit:
            return loop.run_steps(model, loop_settings, state, seq_len - 1)
        return loop.run_until(model, loop_settings, state, seq_len - 1)
    if settings.controlled_decoding is not None:
        return blocks.run_blocks(
            model,
            loop_settings,
            state,
            transform_state_fn,
            settings.controlled_decoding,
            last_step=min(seq_len - 1, max_prefix_len - 1 + steps[-1]),
        )
    if not settings.early_exit:
        if steps[-1] > steps[0]:
            transform_state_fn(model, pad_state_fn(steps[-1] - steps[0]))
        return loop.run_steps(model, loop_settings, state, seq_len - max_prefix_len)
    for index, limit in enumerate(steps):
        if index:
            transform_state_fn(model, pad_state_fn(limit - steps[index - 1]))
            if model.has_rng(base_layer.RANDOM):
                model.next_prng_key()  # Else each loop would draw the noise of the first one.
        last_step = min(seq_len - 1, max_prefix_len - 1 + limit)
        state = loop.run_until(model, loop_settings, state, last_step)
    return state


def _result(
    state: NestedMap,
    settings: SampleSettings,
    loop_settings: loop.LoopSettings,
    repeat: Repeater,
) -> NestedMap:
    """The results with rows [B, n], aligned to the left."""
    result = NestedMap({name: x for name, x in state.items() if name not in INTERNAL})
    lengths, max_prefix_len = loop_settings.prefix_lengths, loop_settings.max_prefix_len
    if settings.optimize_eos:
        shift = 0 if max_prefix_len is None else lengths - max_prefix_len
        result = best_end.collect_results_to_optimize_eos(result, shift)
    result.prefix_ids = loop_settings.prefix_ids
    if max_prefix_len is not None:
        for name in ("output_ids", "logprobs", "prefix_ids", "entropy"):
            if name in result:
                result[name] = left_align_tensor(result[name], lengths, max_prefix_len)
    result.prefix_ids = prefix.left_aligned(result.prefix_ids, lengths)
    result.prefix_lengths = lengths
    result.original_lengths = repeat.rows_of("prefix_paddings", settings.original_lengths)
    result = result.Transform(lambda x: split_batch_dim(x, 0, settings.copies))
    if repeat.pairs:
        result = result.Transform(guidance.conditioned)
    if settings.controlled_decoding is not None:
        # All candidates of the last block are copies of the chosen one.
        every = settings.controlled_decoding.block_num_samples
        result = result.Transform(lambda x: x[:, ::every])
    if settings.num_samples > 1 and settings.sort_samples:
        result = sort_samples_by_scores(result, settings.top_k_recall_target)
    return result

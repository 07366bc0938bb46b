"""From a batch to the arguments of the decoder: prefixes, caches and settings."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding import prefix
from praxis.decoding.options import (
    BeamSearchHParams,
    DecoderHParams,
    GreedyDecoderHParams,
    SampleDecoderHParams,
)
from praxis.decoding.sample import decode_steps, greedy_decode, sample_decode
from praxis.decoding.state import right_align_tensors
from praxis.layers.model.transformer_lm import LanguageModelType

NestedMap = py_utils.NestedMap

# Settings of samplers that a batch may have, by row.
BATCH_SETTINGS = (
    "per_example_max_decode_steps",
    "per_example_top_p",
    "per_example_top_k",
    "gumbel_prng_key",
    "enforce_sample_constraints",
    "num_per_token_logprobs",
)
# Fields of options whose effect is not built yet.
UNBUILT = (
    "lazy_prefix_broadcast",
    "decode_loop_mesh_axes_transpose",
    "num_cache_slots",
    "precompute_kv_cache_prefix_ids",
    "optimize_eos",
    "controlled_decoding",
    "cf_guidance_scale",
    "vanilla_sample_decode",
)


def generate(
    model: Any,
    options: DecoderHParams,
    batch: NestedMap,
    *,
    causal_attention_mask: Shaped[Array, "B P"] | None,
    result_callback: Any = None,
    return_result_for_suffix_score: bool = False,
) -> NestedMap:
    """Generates continuations with the `lm` of a LanguageModel.

    Args:
      model: The LanguageModel, in `apply` with the decode cache mutable.
      options: How.
      batch: The batch.
      causal_attention_mask: [B, P], 0 marks the prefix, for PREFIX models.
      result_callback: For `sample_decode`.
      return_result_for_suffix_score: For `sample_decode`.

    Returns:
      As `sample_decode`.
    """
    check_options(model, options)
    lengths = prefix_lengths(model, batch)
    arguments = _prefill_arguments(model, options, batch, lengths, causal_attention_mask)
    arguments |= {
        "extend_step_fn": _extend_step,
        "transform_state_fn": lambda lm, fn: lm.transform_decode_state(fn),
        "prefix_lengths": lengths,
        "eos_id": options.eos_id,
        "max_decode_steps": options.max_decode_steps,
        "fprop_for_prefix": options.fprop_for_prefix,
        "process_result_fn": options.process_result_fn,
        "min_decode_steps": options.min_decode_steps,
    }
    if isinstance(options, SampleDecoderHParams):
        arguments |= _sample_arguments(options, batch)
        arguments["result_callback"] = result_callback
        arguments["return_result_for_suffix_score"] = return_result_for_suffix_score
        return sample_decode(model.lm, lazy_broadcast_prefix_fn=None, **arguments)
    if result_callback is not None or return_result_for_suffix_score:
        raise ValueError(
            f"{model.path_text}: result_callback and return_result_for_suffix_score are for "
            f"SampleDecoderHParams, got {type(options).__name__}."
        )
    return greedy_decode(model.lm, **arguments)


def check_options(model: Any, options: DecoderHParams) -> None:
    """Refuses options that contradict each other or the model, or that are not built yet.

    Raises:
      ValueError: naming model, field and value.
      NotImplementedError: likewise.
    """
    name = type(options).__name__
    if isinstance(options, BeamSearchHParams) or not isinstance(
        options, GreedyDecoderHParams | SampleDecoderHParams
    ):
        raise NotImplementedError(
            f"{model.path_text}: decoding with {name} is not built yet. Use GreedyDecoderHParams "
            "or SampleDecoderHParams."
        )
    for field in UNBUILT:
        value = getattr(options, field, None)
        if value:
            raise NotImplementedError(
                f"{model.path_text}: {name}.{field} = {value!r} is not built yet. Leave it at its "
                "default."
            )
    if options.seqlen <= 0:
        raise ValueError(
            f"{model.path_text}: {name}.seqlen is {options.seqlen}, expected at least 1 token."
        )
    if options.fprop_for_prefix and options.max_decode_steps is None:
        raise ValueError(
            f"{model.path_text}: {name}.fprop_for_prefix = True needs max_decode_steps, the most "
            "tokens to generate, which is None."
        )
    if model.model_type == LanguageModelType.BIDIRECTIONAL:
        raise NotImplementedError(
            f"{model.path_text}: a model with model_type = {model.model_type.value!r} cannot "
            "generate: earlier tokens would see later ones."
        )
    if not model.is_mutable_collection(base_layer.DECODE_CACHE):
        raise ValueError(
            f"{model.path_text}: decoding needs the collection {base_layer.DECODE_CACHE!r} to be "
            f"mutable: apply(..., mutable=[{base_layer.DECODE_CACHE!r}])."
        )


def prefix_lengths(model: Any, batch: NestedMap) -> Int[Array, " B"]:
    """The number of tokens of each row that are given."""
    if "prefix_lengths" in batch:
        return batch.prefix_lengths.astype(jnp.int32)
    if model.model_type == LanguageModelType.PREFIX:
        return jnp.sum((batch.inputs_indicator != 0).astype(jnp.int32), axis=1)
    return jnp.sum((batch.paddings == 0).astype(jnp.int32), axis=1)


def _extend_step(
    lm: Any, ids: Int[Array, " N"], segment_pos: Int[Array, " N"]
) -> Shaped[Array, "N V"]:
    return lm.extend_step(ids, segment_pos=segment_pos).logits


def _prefill_arguments(
    model: Any,
    options: DecoderHParams,
    batch: NestedMap,
    lengths: Int[Array, " B"],
    causal_attention_mask: Shaped[Array, "B P"] | None,
) -> dict[str, Any]:
    """Prefixes, and the function that fills the caches with them."""
    extra = batch.get("extra_input_kwargs", {}) if options.use_extra_input_kwargs else {}
    if not options.fprop_for_prefix:
        return {
            "prefix_ids": batch.ids,
            "prefix_paddings": batch.paddings,
            "seq_len": options.seqlen,
            "fprop_fn": _prefill_one_padded_token(extra),
        }
    max_prefix_len = batch.ids.shape[1]
    ids, paddings = prefix.right_align_prefix_ids(batch.ids, lengths, model.fprop_dtype)
    if causal_attention_mask is not None:
        causal_attention_mask = right_align_tensors(causal_attention_mask, lengths)

    def fill_caches(lm: Any, prefix_ids: Any, prefix_paddings: Any) -> None:
        del prefix_ids, prefix_paddings
        lm(
            ids,
            paddings,
            segment_ids=(paddings == 0).astype(jnp.int32),
            segment_pos=prefix.right_align_segment_position(lengths, max_prefix_len),
            causal_attention_mask=causal_attention_mask,
            # The loop feeds the last token of the prefix again, in its place.
            start_time_step=max_prefix_len - 1,
            **extra,
        )

    steps = decode_steps(options.max_decode_steps, options.seqlen)
    room = ((0, 0), (0, steps[0]))
    return {
        "prefix_ids": jnp.pad(ids, room),
        "prefix_paddings": jnp.pad(paddings, room, constant_values=1),
        "max_prefix_len": max_prefix_len,
        "seq_len": max_prefix_len + steps[-1],
        "fprop_fn": fill_caches,
    }


def _prefill_one_padded_token(extra: dict[str, Any]) -> Callable[..., None]:
    """A function that makes caches of length 1, which the first step overwrites."""

    def fill_caches(lm: Any, prefix_ids: Any, prefix_paddings: Any) -> None:
        lm(
            jnp.zeros_like(prefix_ids[:, :1]),
            jnp.ones_like(prefix_paddings[:, :1]),
            start_time_step=0,
            **extra,
        )

    return fill_caches


def _sample_arguments(options: SampleDecoderHParams, batch: NestedMap) -> dict[str, Any]:
    """Arguments of `sample_decode` that greedy decoding does not have."""
    sampler = options.next_token_sampler_tpl.clone()
    if options.override_next_token_sampler_params:
        sampler.set(
            top_k=options.k,
            top_p=options.p,
            global_normalize=options.global_normalize,
            top_k_recall_target=options.top_k_recall_target,
            use_top_k_for_logprobs=options.use_top_k_for_logprobs,
        )
    extra = sampler.cls.get_extra_kwargs(batch, options.num_samples)
    constraint = options.sample_constraint
    arguments = {
        "next_token_sampler": sampler.Instantiate(**extra),
        "num_samples": options.num_samples,
        "temperature": batch.get("temperature", options.temperature),
        "sort_samples": options.sort_samples,
        "top_k_recall_target": options.top_k_recall_target,
        "early_exit": options.early_exit,
        "use_top_k_for_logprobs": options.use_top_k_for_logprobs,
        "return_entropy_score": "return_entropy_score" in batch,
        "sample_constraint": None if constraint is None else constraint.Instantiate(),
        "cf_guidance_scale": batch.get("cf_guidance_scale"),
    }
    arguments |= {name: batch[name] for name in BATCH_SETTINGS if name in batch}
    if "eos_id" in batch:
        arguments["eos_id"] = batch.eos_id
    return arguments

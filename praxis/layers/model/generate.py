"""From a batch to the arguments of the decoder: prefixes, caches and settings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding import prefix
from praxis.decoding.beam import beam_search
from praxis.decoding.options import (
    BeamSearchHParams,
    DecoderHParams,
    FlatBeamSearchHParams,
    GreedyDecoderHParams,
    SampleDecoderHParams,
)
from praxis.decoding.sample import greedy_decode, sample_decode
from praxis.decoding.state import right_align_tensors
from praxis.decoding.steps import decode_steps
from praxis.decoding.vanilla import vanilla_sample_decode
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
# Arguments of `sample_decode` that `vanilla_sample_decode` takes too.
VANILLA = (
    "fprop_fn",
    "extend_step_fn",
    "transform_state_fn",
    "next_token_sampler",
    "temperature",
    "gumbel_prng_key",
    "max_decode_steps",
    "eos_id",
    "decode_loop_mesh_axes_transpose",
    "model_var_pspecs",
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
    num_extra = sum(
        value not in (None, False) for value in (result_callback, return_result_for_suffix_score)
    )
    if num_extra and not isinstance(options, SampleDecoderHParams):
        raise ValueError(
            f"{model.path_text}: result_callback and return_result_for_suffix_score are for "
            f"SampleDecoderHParams, got {type(options).__name__}."
        )
    sampling = {}
    if isinstance(options, SampleDecoderHParams):
        sampling = sample_arguments(options, batch)
        if sampling["cf_guidance_scale"] is not None:
            batch = model._prepare_guidance_decode_data(batch)
    arguments = arguments_for(model, options, batch, causal_attention_mask)
    if isinstance(options, BeamSearchHParams):
        return _beam_search(model, options, arguments)
    if not isinstance(options, SampleDecoderHParams):
        return greedy_decode(model.lm, **arguments)
    arguments |= sampling
    if options.vanilla_sample_decode:
        return _vanilla(model, options, arguments)
    return sample_decode(
        model.lm,
        lazy_broadcast_prefix_fn=lazy_broadcast(options),
        result_callback=result_callback,
        return_result_for_suffix_score=return_result_for_suffix_score,
        **arguments,
    )


def arguments_for(
    model: Any,
    options: DecoderHParams,
    batch: NestedMap,
    causal_attention_mask: Shaped[Array, "B P"] | None,
) -> dict[str, Any]:
    """Arguments of `greedy_decode`, but the model."""
    lengths = prefix_lengths(model, batch)
    arguments = _prefill_arguments(model, options, batch, lengths, causal_attention_mask)
    return arguments | {
        "extend_step_fn": extend_step,
        "transform_state_fn": lambda lm, fn: lm.transform_decode_state(fn),
        "prefix_lengths": lengths,
        "eos_id": options.eos_id,
        "max_decode_steps": options.max_decode_steps,
        "fprop_for_prefix": options.fprop_for_prefix,
        "process_result_fn": options.process_result_fn,
        "min_decode_steps": options.min_decode_steps,
        "decode_loop_mesh_axes_transpose": options.decode_loop_mesh_axes_transpose,
        "model_var_pspecs": variable_specs(model.lm, options),
    }


def lazy_broadcast(options: DecoderHParams) -> Callable[..., None] | None:
    """What makes continuations share the caches of their prefix, if they are to."""
    if not options.lazy_prefix_broadcast:
        return None
    return lambda lm, copies, steps: lm.lazy_broadcast_prefix(copies, steps)


def variable_specs(lm: Any, options: DecoderHParams) -> Any:
    """PartitionSpecs of the parameters, where the loop renames mesh axes; else None."""
    if not options.decode_loop_mesh_axes_transpose:
        return None
    specs = lm.quantized_partition_specs()[base_layer.PARAMS]
    return jax.tree.map(lambda spec: spec.meta, specs, is_leaf=lambda x: hasattr(x, "meta"))


def _beam_search(model: Any, options: BeamSearchHParams, arguments: dict[str, Any]) -> NestedMap:
    """Beam search with the arguments of `greedy_decode`."""
    width = arguments["max_prefix_len"]
    return beam_search(
        model.lm,
        arguments["extend_step_fn"],
        arguments["fprop_fn"],
        arguments["transform_state_fn"],
        arguments["prefix_ids"][:, :width],
        arguments["prefix_paddings"][:, :width],
        options,
        decode_loop_mesh_axes_transpose=arguments["decode_loop_mesh_axes_transpose"],
        model_var_pspecs=arguments["model_var_pspecs"],
        process_result_fn=arguments["process_result_fn"],
        lazy_broadcast_prefix_fn=lazy_broadcast(options),
    )


def _vanilla(model: Any, options: SampleDecoderHParams, arguments: dict[str, Any]) -> NestedMap:
    """Plain sampling with the arguments of `sample_decode`."""
    if not options.fprop_for_prefix or not isinstance(options.max_decode_steps, int):
        raise ValueError(
            f"{model.path_text}: SampleDecoderHParams.vanilla_sample_decode = True needs "
            "fprop_for_prefix = True and max_decode_steps to be an int, got "
            f"{options.fprop_for_prefix} and {options.max_decode_steps}."
        )
    width = arguments["max_prefix_len"]
    return vanilla_sample_decode(
        model.lm,
        prefix_ids=arguments["prefix_ids"][:, :width],
        prefix_paddings=arguments["prefix_paddings"][:, :width],
        **{name: arguments[name] for name in VANILLA if name in arguments},
    )


def check_options(model: Any, options: DecoderHParams) -> None:
    """Refuses options that contradict each other or the model, or that cannot work.

    Raises:
      ValueError: naming model, field and value.
      NotImplementedError: likewise.
    """
    check_decoder(model, options)
    name = type(options).__name__
    if options.fprop_for_prefix and options.max_decode_steps is None:
        raise ValueError(
            f"{model.path_text}: {name}.fprop_for_prefix = True needs max_decode_steps, the most "
            "tokens to generate, which is None."
        )
    if isinstance(options, BeamSearchHParams) and not options.fprop_for_prefix:
        raise ValueError(
            f"{model.path_text}: {name} needs fprop_for_prefix = True, and max_decode_steps, the "
            "most tokens to generate."
        )
    if options.lazy_prefix_broadcast and not options.fprop_for_prefix:
        raise ValueError(
            f"{model.path_text}: {name}.lazy_prefix_broadcast = True needs fprop_for_prefix = True."
        )
    if model.model_type == LanguageModelType.BIDIRECTIONAL:
        raise NotImplementedError(
            f"{model.path_text}: a model with model_type = {model.model_type.value!r} cannot "
            "generate: earlier tokens would see later ones."
        )


def check_decoder(model: Any, options: DecoderHParams) -> None:
    """Refuses what no model can decode with, as `check_options`."""
    name = type(options).__name__
    if isinstance(options, FlatBeamSearchHParams):
        raise NotImplementedError(
            f"{model.path_text}: decoding with {name} needs attention that follows a mask of "
            "beginnings, which no layer here has. Use BeamSearchHParams, which reorders caches."
        )
    if not isinstance(options, GreedyDecoderHParams | SampleDecoderHParams | BeamSearchHParams):
        raise NotImplementedError(
            f"{model.path_text}: there is no way to decode with {name}. Use GreedyDecoderHParams, "
            "SampleDecoderHParams or BeamSearchHParams."
        )
    if options.seqlen <= 0:
        raise ValueError(
            f"{model.path_text}: {name}.seqlen is {options.seqlen}, expected at least 1 token."
        )
    if not model.is_mutable_collection(base_layer.DECODE_CACHE):
        raise ValueError(
            f"{model.path_text}: decoding needs the collection {base_layer.DECODE_CACHE!r} to be "
            f"mutable: apply(..., mutable=[{base_layer.DECODE_CACHE!r}])."
        )
    if options.lazy_prefix_broadcast and not model.is_mutable_collection(
        base_layer.PREFIX_DECODE_CACHE
    ):
        raise ValueError(
            f"{model.path_text}: {name}.lazy_prefix_broadcast = True needs the collection "
            f"{base_layer.PREFIX_DECODE_CACHE!r} to be mutable too."
        )


def prefix_lengths(model: Any, batch: NestedMap) -> Int[Array, " B"]:
    """The number of tokens of each row that are given."""
    if "prefix_lengths" in batch:
        return batch.prefix_lengths.astype(jnp.int32)
    if model.model_type == LanguageModelType.PREFIX:
        return jnp.sum((batch.inputs_indicator != 0).astype(jnp.int32), axis=1)
    return jnp.sum((batch.paddings == 0).astype(jnp.int32), axis=1)


def extend_step(
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


def sample_arguments(options: SampleDecoderHParams, batch: NestedMap) -> dict[str, Any]:
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
        "cf_guidance_scale": batch.get("cf_guidance_scale", options.cf_guidance_scale),
        "optimize_eos": options.optimize_eos,
        "controlled_decoding": options.controlled_decoding,
    }
    arguments |= {name: batch[name] for name in BATCH_SETTINGS if name in batch}
    if "eos_id" in batch:
        arguments["eos_id"] = batch.eos_id
    return arguments

"""From a batch of sources and targets to the arguments of the decoder."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis import py_utils
from praxis.decoding.beam import beam_search
from praxis.decoding.options import BeamSearchHParams, DecoderHParams, SampleDecoderHParams
from praxis.decoding.sample import sample_decode
from praxis.decoding.samplers import DefaultNextTokenSampler
from praxis.decoding.steps import decode_steps
from praxis.layers.model import generate as language_generate

NestedMap = py_utils.NestedMap


def generate(model: Any, options: DecoderHParams, batch: NestedMap) -> NestedMap:
    """Generates targets with the `model` of a SequenceModel.

    Args:
      model: The SequenceModel, in `apply` with the decode cache mutable.
      options: How.
      batch: The batch.

    Returns:
      As `sample_decode`.
    """
    check_options(model, options)
    tgt = batch.tgt
    if isinstance(options, BeamSearchHParams):
        return beam_search(
            model.model,
            _extend_step,
            _prefill(batch),
            lambda lm, fn: lm.transform_decode_state(fn),
            tgt.ids[:, :1],
            jnp.ones_like(tgt.paddings[:, :1]),  # The first token is no part of the text.
            options,
            process_result_fn=options.process_result_fn,
        )
    lengths = batch.get("prefix_lengths", jnp.zeros(tgt.ids.shape[0], jnp.int32))
    limit, limits = _steps(options, lengths)
    arguments = {
        "extend_step_fn": _extend_step,
        "transform_state_fn": lambda lm, fn: lm.transform_decode_state(fn),
        "fprop_fn": _prefill(batch),
        "prefix_ids": tgt.ids,
        "prefix_paddings": tgt.paddings,
        "prefix_lengths": lengths.astype(jnp.int32),
        "seq_len": options.seqlen,
        "eos_id": options.eos_id,
        "max_decode_steps": limit,
        "process_result_fn": options.process_result_fn,
        "min_decode_steps": options.min_decode_steps,
    }
    if isinstance(options, SampleDecoderHParams):
        # Here the sampler always takes the options.
        options = dataclasses.replace(options, override_next_token_sampler_params=True)
        arguments |= language_generate.sample_arguments(options, batch)
    else:
        sampler = DefaultNextTokenSampler(top_k=1)
        arguments |= {"next_token_sampler": sampler, "num_samples": 1, "temperature": 0.0}
    if limits is not None:
        own = arguments.get("per_example_max_decode_steps")
        arguments["per_example_max_decode_steps"] = (
            limits if own is None else jnp.minimum(limits, own + (lengths == 0))
        )
    return sample_decode(model.model, lazy_broadcast_prefix_fn=None, **arguments)


def check_options(model: Any, options: DecoderHParams) -> None:
    """Refuses options that contradict each other or the model, or that are not built.

    Raises:
      ValueError: naming model, field and value.
      NotImplementedError: likewise.
    """
    language_generate.check_decoder(model, options)
    name = type(options).__name__
    for field in ("fprop_for_prefix", "lazy_prefix_broadcast", "decode_loop_mesh_axes_transpose"):
        if getattr(options, field):
            raise NotImplementedError(
                f"{model.path_text}: {name}.{field} is not for this model, whose targets are fed "
                "token by token. Leave it at its default."
            )


def _steps(
    options: DecoderHParams, lengths: Int[Array, " B"]
) -> tuple[int | None, Int[Array, " B"] | None]:
    """The most steps of the loop, for all rows and for each, where the first token counts too.

    Where no tokens are given the decoder takes the first one for generated.
    """
    if options.max_decode_steps is None:
        return None, None
    limit = decode_steps(options.max_decode_steps, options.seqlen)[-1]
    return limit + 1, limit + (lengths == 0).astype(jnp.int32)


def _extend_step(
    model: Any, ids: Int[Array, " N"], segment_pos: Int[Array, " N"]
) -> Shaped[Array, "N V"]:
    del segment_pos  # All targets start at 0.
    return model.extend_step(ids).logits


def _prefill(batch: NestedMap) -> Any:
    """A function that makes caches of the source, and of length 1 of the target."""
    src, tgt = batch.src, batch.tgt

    def fill_caches(model: Any, prefix_ids: Any, prefix_paddings: Any) -> None:
        del prefix_ids, prefix_paddings
        model(
            inputs=src.ids,
            input_paddings=src.paddings,
            targets=tgt.ids[:, :1],
            target_paddings=tgt.paddings[:, :1],
            start_time_step=0,
        )

    return fill_caches

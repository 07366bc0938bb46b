"""Generation token by token with a LanguageModel."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from praxis import py_utils
from praxis.decoding import loop, sample
from praxis.decoding.options import DecoderHParams, GreedyDecoderHParams, SampleDecoderHParams
from praxis.decoding.repeater import Repeater
from praxis.decoding.samplers import DefaultNextTokenSampler
from praxis.decoding.state import pad_state_fn
from praxis.decoding.steps import decode_steps
from praxis.decoding.stream import NewTokens, StreamFns, TokenStreamer, round_up
from praxis.layers.model import generate

NestedMap = py_utils.NestedMap

# Widths of prompts, and numbers of tokens to generate, are rounded up to a multiple of this.
BUCKET = 32
# Fields of a batch that prompts are made of.
PROMPT_FIELDS = ("ids", "paddings", "inputs_indicator")


def stream(
    model: Any,
    variables: Any,
    options: DecoderHParams,
    batch: NestedMap,
    prng_key: jax.Array | None,
    stop_sequences: Sequence[Sequence[int]],
) -> Iterator[NewTokens]:
    """Generates as `LanguageModel.stream` says."""
    _check(model, options)
    max_steps = decode_steps(options.max_decode_steps, options.seqlen)[-1]
    streamer = _streamer(_ById(model), repr(options), _ById(options), round_up(max_steps, BUCKET))
    return streamer(
        variables,
        _request(batch, max_steps),
        max_steps=max_steps,
        prng_key=jax.random.PRNGKey(0) if prng_key is None else prng_key,
        stop_sequences=stop_sequences,
    )


class _ById:
    """Keeps an object, as a key that equals keys of the same object only."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.value is other.value


@functools.lru_cache(maxsize=8)
def _streamer(model: _ById, _: str, options: _ById, max_steps: int) -> TokenStreamer:
    """The compiled functions of a layer and options; options that were changed are others."""
    clone = options.value.clone()
    clone.max_decode_steps = max_steps
    clone.fprop_for_prefix = True

    def arguments_of(layer: Any, request: NestedMap) -> dict[str, Any]:
        generate.check_options(layer, clone)
        mask = None
        if "inputs_indicator" in request:
            mask = layer.causal_attention_mask(request)
        return _arguments(layer, clone, request, mask)

    def prefill(layer: Any, request: NestedMap) -> NestedMap:
        arguments = arguments_of(layer, request)
        arguments["fprop_fn"](layer.lm, arguments["prefix_ids"], arguments["prefix_paddings"])
        layer.lm.transform_decode_state(pad_state_fn(max_steps))
        return loop.initial_state(layer.lm, _loop_settings(arguments), arguments["seq_len"])

    def step(layer: Any, request: NestedMap, state: NestedMap) -> NestedMap:
        return loop.next_state(layer.lm, _loop_settings(arguments_of(layer, request)), state)

    return TokenStreamer(model.value, StreamFns(prefill, step))


def _check(model: Any, options: DecoderHParams) -> None:
    name = type(options).__name__
    if not isinstance(options, GreedyDecoderHParams | SampleDecoderHParams):
        raise ValueError(
            f"{model.path_text}: stream takes GreedyDecoderHParams or SampleDecoderHParams, got "
            f"{name}."
        )
    if options.max_decode_steps is None:
        raise ValueError(
            f"{model.path_text}: stream needs {name}.max_decode_steps, the most tokens to "
            "generate, which is None."
        )
    if not isinstance(options, SampleDecoderHParams):
        return
    for field, plain in (
        ("num_samples", 1),
        ("cf_guidance_scale", None),
        ("controlled_decoding", None),
        ("optimize_eos", False),
    ):
        if (value := getattr(options, field)) != plain:
            raise ValueError(
                f"{model.path_text}: {name}.{field} = {value!r} does not go with stream, whose "
                f"tokens are final. Set it to {plain!r}, or use decode."
            )


def _request(batch: NestedMap, max_steps: int) -> NestedMap:
    """The batch with prompts of a rounded width."""
    request = NestedMap(batch)
    width = batch.ids.shape[1]
    room = ((0, 0), (0, round_up(width, BUCKET) - width))
    for name in PROMPT_FIELDS:
        if name in batch:
            fill = 1 if name == "paddings" else 0
            request[name] = jnp.pad(jnp.asarray(batch[name]), room, constant_values=fill)
    for name in set(request) - {*PROMPT_FIELDS, *generate.BATCH_SETTINGS, "prefix_lengths"}:
        if name not in ("temperature", "eos_id", "extra_input_kwargs"):
            del request[name]
    limit = jnp.full((batch.ids.shape[0],), max_steps)
    own = batch.get("per_example_max_decode_steps")
    request.per_example_max_decode_steps = limit if own is None else jnp.minimum(own, limit)
    return request


def _arguments(
    layer: Any, options: DecoderHParams, request: NestedMap, mask: Any
) -> dict[str, Any]:
    """The arguments of `sample_decode` for a request."""
    arguments = generate.arguments_for(layer, options, request, mask)
    if isinstance(options, SampleDecoderHParams):
        arguments |= generate.sample_arguments(options, request)
    else:
        arguments |= {
            "next_token_sampler": DefaultNextTokenSampler(top_k=1),
            "num_samples": 1,
            "temperature": 0.0,
            "per_example_max_decode_steps": request.per_example_max_decode_steps,
        }
    return arguments


def _loop_settings(arguments: dict[str, Any]) -> loop.LoopSettings:
    settings = sample.default_settings(lazy_broadcast_prefix_fn=None, **arguments)
    return sample.settings_of_loop(settings, Repeater(settings.prefix_ids.shape[0], 1))

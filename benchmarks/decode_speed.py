"""Tokens a second of greedy decoding with a cache, beside a hand-written loop of the same maths.

Both programs have the same weights, and have to give the same tokens, or the run fails. Their runs
take turns, and medians are compared. Prints a Markdown table.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import models, transformer_models, transformers

BATCHES = flags.DEFINE_list("batches", ["1", "16"], "Values of B.")
LAYERS = flags.DEFINE_integer("layers", 4, "Layers.")
WIDTH = flags.DEFINE_integer("width", 256, "D; F is four times as much.")
HEADS = flags.DEFINE_integer("heads", 4, "N.")
VOCABULARY = flags.DEFINE_integer("vocabulary", 1024, "V.")
PROMPT = flags.DEFINE_integer("prompt", 32, "Tokens of a prompt.")
STEPS = flags.DEFINE_integer("steps", 128, "Tokens to generate.")
RUNS = flags.DEFINE_integer("runs", 9, "Timed runs of each program.")


def config() -> pax_fiddle.Config[models.LanguageModel]:
    """A prenorm model with rotary positions and without biases in attention."""
    stack = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=LAYERS.value,
        hidden_dims=4 * WIDTH.value,
        num_heads=HEADS.value,
    )
    stack.transformer_layer_params_tpl.tr_atten_tpl.set(
        use_bias=False,
        combine_qkv=True,
        use_rotary_position_emb=True,
        internal_enable_per_dim_scale=False,
    )
    lm = pax_fiddle.Config(
        transformer_models.TransformerLm,
        model_dims=WIDTH.value,
        vocab_size=VOCABULARY.value,
        position_emb_tpl=None,
        stacked_transformer_tpl=stack,
    )
    decoder = decoder_hparams.GreedyDecoderHParams(
        seqlen=PROMPT.value + STEPS.value,
        max_decode_steps=STEPS.value,
        fprop_for_prefix=True,
        eos_id=-1,
    )
    return pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm, decoder_tpl=decoder)


# ---- the same by hand ---------------------------------------------------------------------------


def layer_norm(x: jax.Array, params: Any) -> jax.Array:
    """Prenorm with a scale around 1."""
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-6) * (1 + params["scale"]) + params["bias"]


def rotate(x: jax.Array, position: jax.Array) -> jax.Array:
    """Rotates the halves of [B, T, N, H] by positions [T]."""
    half = x.shape[-1] // 2
    timescale = 1e4 ** (jnp.arange(half) / half)
    angle = position[:, None, None] / timescale  # [T, 1, H / 2]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def forward(
    params: Any, tokens: jax.Array, start: Any, caches: list[Any]
) -> tuple[jax.Array, list[Any]]:
    """Tokens [B, T] from `start` on to logits of the last [B, V]; writes and reads the caches."""
    table = params["softmax"]["logits_ffn"]["linear"]["w"]  # [D, V]
    x = jnp.take(table.T, tokens, axis=0)
    position = start + jnp.arange(tokens.shape[1])
    new_caches = []
    for index, (keys, values) in enumerate(caches):
        layer = params["transformer"][f"x_layers_{index}"]
        attention = layer["self_attention"]
        h = layer_norm(x, layer["layer_norm"])
        query, key, value = jnp.einsum("btd,cdnh->cbtnh", h, attention["combined_qkv"]["w"])
        query, key = rotate(query, position), rotate(key, position)
        keys = lax.dynamic_update_slice_in_dim(keys, key, start, axis=1)
        values = lax.dynamic_update_slice_in_dim(values, value, start, axis=1)
        new_caches.append((keys, values))
        logits = jnp.einsum("btnh,bsnh->bnts", query * query.shape[-1] ** -0.5, keys)
        sees = jnp.arange(keys.shape[1])[None] <= position[:, None]  # [T, S]
        probs = jax.nn.softmax(jnp.where(sees[None, None], logits, -1e30), axis=-1)
        context = jnp.einsum("bnts,bsnh->btnh", probs, values)
        x += jnp.einsum("btnh,dnh->btd", context, attention["post"]["w"])
        ffn = layer["ff_layer"]
        h = layer_norm(x, ffn["layer_norm"])
        h = h @ ffn["ffn_layer1"]["linear"]["w"] + ffn["ffn_layer1"]["bias"]["b"]
        h = jax.nn.relu(h) @ ffn["ffn_layer2"]["linear"]["w"] + ffn["ffn_layer2"]["bias"]["b"]
        x += h
    x = layer_norm(x[:, -1], params["final_ln"])
    return x @ table + params["softmax"]["logits_ffn"]["bias"]["b"], new_caches


def decode_by_hand(params: Any, prompt: jax.Array) -> jax.Array:
    """The most likely continuation of [B, P], [B, STEPS]."""
    batch, heads = prompt.shape[0], HEADS.value
    shape = (batch, PROMPT.value + STEPS.value, heads, WIDTH.value // heads)
    caches = [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(LAYERS.value)]
    logits, caches = forward(params, prompt, 0, caches)
    first = jnp.argmax(logits, -1).astype(jnp.int32)
    output = jnp.zeros((batch, STEPS.value), jnp.int32).at[:, 0].set(first)

    def step(index: Any, state: Any) -> Any:
        output, token, caches = state
        logits, caches = forward(params, token[:, None], PROMPT.value + index - 1, caches)
        token = jnp.argmax(logits, -1).astype(jnp.int32)
        output = lax.dynamic_update_slice_in_dim(output, token[:, None], index, axis=1)
        return output, token, caches

    return lax.fori_loop(1, STEPS.value, step, (output, first, caches))[0]


# ---- measuring ----------------------------------------------------------------------------------


def programs(batch: int) -> tuple[Callable[[], jax.Array], Callable[[], jax.Array]]:
    """Pax's decoding and that by hand, compiled, for the same weights and prompts."""
    model = base_layer.instantiate(config())
    prompt = jax.random.randint(jax.random.PRNGKey(1), [batch, PROMPT.value], 1, VOCABULARY.value)
    inputs = py_utils.NestedMap(ids=prompt, paddings=jnp.zeros(prompt.shape))
    labelled = inputs | {"labels": prompt, "weights": jnp.ones(prompt.shape)}
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), labelled)

    @jax.jit
    def decode(variables: Any, inputs: Any) -> jax.Array:
        hparams = base_layer.JaxContext.HParams(do_eval=True)
        with base_layer.JaxContext.new_context(hparams=hparams):
            (_, out, _), _ = model.apply(
                variables,
                inputs,
                method=model.decode,
                mutable=[base_layer.DECODE_CACHE],
                rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
            )
        return out.output_ids[:, 0, PROMPT.value :]

    by_hand = jax.jit(decode_by_hand)
    params = variables["params"]["lm"]
    return lambda: decode(variables, inputs), lambda: by_hand(params, prompt)


def seconds(function: Callable[[], jax.Array]) -> float:
    """Time of one run."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    del argv
    print(
        f"Greedy decoding of {STEPS.value} tokens after {PROMPT.value}: {LAYERS.value} layers, D = "
        f"{WIDTH.value}, N = {HEADS.value}, V = {VOCABULARY.value}, float32, on "
        f"{jax.devices()[0].device_kind}; medians of {RUNS.value} runs\n"
    )
    print("| B | Pax, tokens/s | by hand, tokens/s | ratio |\n| ---: | ---: | ---: | ---: |")
    for batch in map(int, BATCHES.value):
        ours, by_hand = programs(batch)
        np.testing.assert_array_equal(ours(), by_hand())
        times = [(seconds(ours), seconds(by_hand)) for _ in range(RUNS.value)]
        rates = [
            batch * STEPS.value / statistics.median(column) for column in zip(*times, strict=True)
        ]
        print(f"| {batch} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.2f} |")


if __name__ == "__main__":
    app.run(main)

"""The language model written in plain jax.numpy, as well as we can.

The weights are Pax's, in the layout that is best here. Tried on CPU, with 4 layers, D = 256, B = 8
and T = 128, for loss and gradient; the best is kept, differences below 2% are noise:

- variance as mean((x - mean)^2) against mean(x^2) - mean^2: 9% faster, since the backward pass of
  the second needs x and x - mean
- `x + (h @ w + b)` against `(x + h @ w) + b`: 3% faster, the bias goes into the product's loop
- the embedding table as [V, D] or [D, V]: the same
- queries, keys and values by one product with [D, 3 N H], or by one einsum with [3, D, N, H]: the
  same; the output projection as [N H, D] or [D, N, H]: the same
- queries scaled before the rotation, or the logits: the same

Only what the data needs is computed: there is no padding, so nothing hides it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.language_model import Sizes

Cache = tuple[jax.Array, jax.Array]


# ---- weights ------------------------------------------------------------------------------------


def weights_from_pax(params: Any, sizes: Sizes) -> dict[str, Any]:
    """Pax's parameters of `lm` in the layout of this module; repeated layers stay stacked."""
    output = params["softmax"]["logits_ffn"]
    stack = params["transformer"]
    if sizes.repeated:
        layers: Any = jax.vmap(_layer_from_pax)(stack["repeat"]["sub"]["x_layers_0"])
    else:
        layers = [_layer_from_pax(stack[f"x_layers_{index}"]) for index in range(sizes.layers)]
    return {
        "embedding": output["linear"]["w"].T,  # [V, D]
        "output_bias": output["bias"]["b"],
        "norm": _norm_from_pax(params["final_ln"]),
        "layers": layers,
    }


def _norm_from_pax(norm: Any) -> dict[str, jax.Array]:
    return {"scale": 1 + norm["scale"], "bias": norm["bias"]}


def _layer_from_pax(layer: Any) -> dict[str, Any]:
    attention, ffn = layer["self_attention"], layer["ff_layer"]
    width = attention["post"]["w"].shape[0]
    return {
        "norm_1": _norm_from_pax(layer["layer_norm"]),
        "qkv": jnp.moveaxis(attention["combined_qkv"]["w"], 0, 1).reshape(width, -1),  # [D, 3 N H]
        "post": attention["post"]["w"].reshape(width, -1).T,  # [N H, D]
        "norm_2": _norm_from_pax(ffn["layer_norm"]),
        "w_1": ffn["ffn_layer1"]["linear"]["w"],
        "b_1": ffn["ffn_layer1"]["bias"]["b"],
        "w_2": ffn["ffn_layer2"]["linear"]["w"],
        "b_2": ffn["ffn_layer2"]["bias"]["b"],
    }


# ---- layers -------------------------------------------------------------------------------------


def layer_norm(x: jax.Array, params: Any) -> jax.Array:
    centered = x - jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), -1, keepdims=True)
    return centered * lax.rsqrt(variance + 1e-6) * params["scale"] + params["bias"]


def rotate(x: jax.Array, position: jax.Array) -> jax.Array:
    """Rotates the halves of [B, T, N, H] by positions [T]."""
    half = x.shape[-1] // 2
    timescale = 1e4 ** (jnp.arange(half) / half)
    angle = position[:, None, None] / timescale  # [T, 1, H / 2]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def project(
    x: jax.Array, layer: Any, position: jax.Array, sizes: Sizes
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Query, key and value of the layer's input [B, T, D], all [B, T, N, H]."""
    h = layer_norm(x, layer["norm_1"])
    heads = (h @ layer["qkv"]).reshape(*x.shape[:2], 3, sizes.heads, sizes.head_width)
    query, key, value = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
    return rotate(query * sizes.head_width**-0.5, position), rotate(key, position), value


def attend(query: jax.Array, key: jax.Array, value: jax.Array, sees: jax.Array) -> jax.Array:
    """[B, T, N H] of keys that each query sees, [T, S]."""
    logits = jnp.einsum("btnh,bsnh->bnts", query, key)
    probs = jax.nn.softmax(jnp.where(sees, logits, -1e30), axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", probs, value).reshape(*query.shape[:2], -1)


def feed_forward(x: jax.Array, layer: Any) -> jax.Array:
    h = layer_norm(x, layer["norm_2"])
    h = jax.nn.relu(h @ layer["w_1"] + layer["b_1"])
    return x + (h @ layer["w_2"] + layer["b_2"])


# ---- training -----------------------------------------------------------------------------------


def loss_of(sizes: Sizes) -> Callable[[Any, jax.Array], jax.Array]:
    """The loss of weights and tokens, [B, T + 1]."""

    def loss(weights: Any, ids: jax.Array) -> jax.Array:
        position = jnp.arange(ids.shape[1] - 1)
        sees = position[:, None] >= position[None]

        def block(x: jax.Array, layer: Any) -> jax.Array:
            context = attend(*project(x, layer, position, sizes), sees)
            return feed_forward(x + context @ layer["post"], layer)

        x = jnp.take(weights["embedding"], ids[:, :-1], axis=0)
        if sizes.repeated:
            # As Pax does it by default, the backward pass computes the layer again.
            again = jax.checkpoint(block)
            x, _ = lax.scan(lambda x, layer: (again(x, layer), None), x, weights["layers"])
        else:
            for layer in weights["layers"]:
                x = block(x, layer)
        return cross_entropy(logits_of(x, weights), ids[:, 1:])

    return loss


def logits_of(x: jax.Array, weights: Any) -> jax.Array:
    return layer_norm(x, weights["norm"]) @ weights["embedding"].T + weights["output_bias"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    labelled = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - labelled)


# ---- decoding -----------------------------------------------------------------------------------


def step_with_caches(
    weights: Any, tokens: jax.Array, start: Any, caches: list[Cache], sizes: Sizes
) -> tuple[jax.Array, list[Cache]]:
    """Tokens [B, T] from `start` on to logits of the last [B, V]; writes and reads the caches."""
    x = jnp.take(weights["embedding"], tokens, axis=0)
    position = start + jnp.arange(tokens.shape[1])
    new_caches = []
    for layer, (keys, values) in zip(weights["layers"], caches, strict=True):
        query, key, value = project(x, layer, position, sizes)
        keys = lax.dynamic_update_slice_in_dim(keys, key, start, axis=1)
        values = lax.dynamic_update_slice_in_dim(values, value, start, axis=1)
        new_caches.append((keys, values))
        sees = jnp.arange(keys.shape[1])[None] <= position[:, None]  # [T, S]
        x = feed_forward(x + attend(query, keys, values, sees) @ layer["post"], layer)
    return logits_of(x[:, -1], weights), new_caches


def decode(weights: Any, prompt: jax.Array, sizes: Sizes, steps: int) -> jax.Array:
    """The most likely continuation of [B, P], [B, steps]."""
    batch, prompt_len = prompt.shape
    shape = (batch, prompt_len + steps, sizes.heads, sizes.head_width)
    caches = [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(sizes.layers)]
    logits, caches = step_with_caches(weights, prompt, 0, caches, sizes)
    first = jnp.argmax(logits, -1).astype(jnp.int32)
    output = jnp.zeros((batch, steps), jnp.int32).at[:, 0].set(first)

    def step(index: Any, state: Any) -> Any:
        output, token, caches = state
        start = prompt_len + index - 1
        logits, caches = step_with_caches(weights, token[:, None], start, caches, sizes)
        token = jnp.argmax(logits, -1).astype(jnp.int32)
        output = lax.dynamic_update_slice_in_dim(output, token[:, None], index, axis=1)
        return output, token, caches

    return lax.fori_loop(1, steps, step, (output, first, caches))[0]

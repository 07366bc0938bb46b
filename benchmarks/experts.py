"""Gradient of a mixture of experts, 8 experts and 2 of them a token, against sorted dispatch.

The other programs are written by hand, with the same normalization, gates and skip connection:
tokens are sorted by expert, multiplied by the weights of their expert, and summed back. With a
capacity, tokens go to E x C places. Without one, three ways were written and all are measured:
`jax.lax.ragged_dot`; rows padded to blocks of one expert; all experts for all tokens.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import by_hand, frame
from benchmarks.frame import OURS, Row, Settings
from praxis import base_layer, pax_fiddle
from praxis.layers.transformers import TransformerFeedForwardMoe

LIMIT = frame.at_most(1.1)
EXPERTS = 8
# Rows of a block of one expert.
BLOCK = 64


def measure(settings: Settings) -> Iterator[Row]:
    tokens, width, hidden = settings.choose((512, 64, 128), (2048, 256, 1024))
    x = jax.random.normal(jax.random.PRNGKey(1), (4, tokens // 4, width))
    capacity = 2 * tokens // EXPERTS
    hand = {
        "gather to places": functools.partial(with_capacity, capacity=capacity),
        "one-hot": functools.partial(with_one_hot, capacity=capacity),
    }
    yield row("with a capacity of 2 S / E", "top2", 2.0, x, hidden, hand, settings)
    hand = {
        "ragged_dot": with_ragged_dot,
        "blocks": with_blocks,
        "all experts": with_all_experts,
    }
    yield row("no token dropped", "top_k", 0.0, x, hidden, hand, settings)


def row(
    case: str,
    gating_func: str,
    factor: float,
    x: jax.Array,
    hidden: int,
    hand: dict[str, Any],
    settings: Settings,
) -> Row:
    config = pax_fiddle.Config(
        TransformerFeedForwardMoe,
        name="moe",
        input_dims=x.shape[-1],
        hidden_dims=hidden,
        num_experts=EXPERTS,
        num_groups=1,
        gating_func=gating_func,
        unadjusted_expert_capacity_factor=factor,
    )
    layer = pax_fiddle.build(config)
    paddings = jnp.zeros(x.shape[:2])
    params = base_layer.maybe_unbox_value(layer.init(jax.random.PRNGKey(0), x, paddings)["params"])

    def ours(params: Any, x: jax.Array) -> jax.Array:
        with base_layer.JaxContext.new_context():
            outputs, _ = layer.apply(
                {"params": params}, x, paddings, mutable=[base_layer.AUX_LOSS, base_layer.SUMMARIES]
            )
        return outputs

    layers = {OURS: ours, **{name: functools.partial(apply, mix=mix) for name, mix in hand.items()}}
    compiled = {
        name: jax.jit(jax.value_and_grad(lambda p, x, f=f: jnp.sum(jnp.sin(f(p, x))), (0, 1)))
        for name, f in layers.items()
    }
    calls = {name: lambda program=program: program(params, x) for name, program in compiled.items()}
    outputs = {name: jax.jit(function)(params, x) for name, function in layers.items()}
    frame.same(f"outputs of experts, {case}", outputs)
    results = {name: call() for name, call in calls.items()}
    frame.same(f"gradients of experts, {case}", results, rtol=1e-2)
    return frame.compare(case, calls, settings, limit=LIMIT, note=f"{x[..., 0].size} tokens")


# ---- by hand ------------------------------------------------------------------------------------


def apply(params: Any, x: jax.Array, mix: Any) -> jax.Array:
    """The layer, with `mix(params, tokens, experts, gates)` [S, D] for the experts."""
    norm = params["layer_norm"]
    normed = by_hand.layer_norm(x, {"scale": 1 + norm["scale"], "bias": norm["bias"]})
    tokens = normed.reshape(-1, x.shape[-1])  # [S, D]
    probs = jax.nn.softmax(tokens @ params["gate"])
    gates, experts = jax.lax.top_k(probs, 2)  # [S, 2]
    gates = gates / jnp.sum(gates, -1, keepdims=True)
    return x + mix(params, tokens, experts, gates).reshape(x.shape)


def feed_forward(rows: jax.Array, params: Any) -> jax.Array:
    """[E, C, D] to [E, C, D]."""
    hidden = jax.nn.relu(jnp.einsum("ecd,edf->ecf", rows, params["wi_0"]))
    return jnp.einsum("ecf,efd->ecd", hidden, params["wo_0"])


def _places(experts: jax.Array) -> jax.Array:
    """[S, 2], place of each choice in its expert's queue; first choices come first."""
    one_hot = jax.nn.one_hot(experts.T.reshape(-1), EXPERTS, dtype=jnp.int32)  # [2 S, E]
    places = jnp.sum((jnp.cumsum(one_hot, axis=0) - 1) * one_hot, axis=-1)
    return places.reshape(2, -1).T


def with_capacity(
    params: Any, tokens: jax.Array, experts: jax.Array, gates: jax.Array, *, capacity: int
) -> jax.Array:
    """Gathers tokens to places by index, and back."""
    places = _places(experts)
    kept = places < capacity
    flat = jnp.where(kept, experts * capacity + places, EXPERTS * capacity)  # [S, 2]
    numbers = jnp.broadcast_to(jnp.arange(tokens.shape[0])[:, None], flat.shape)
    empty = jnp.full((EXPERTS * capacity,), tokens.shape[0])
    slots = empty.at[flat].set(numbers, mode="drop")
    rows = jnp.take(tokens, slots, axis=0, mode="fill", fill_value=0)
    outputs = feed_forward(rows.reshape(EXPERTS, capacity, -1), params)
    outputs = outputs.reshape(EXPERTS * capacity, -1)
    found = jnp.take(outputs, jnp.minimum(flat, outputs.shape[0] - 1), axis=0)  # [S, 2, D]
    return jnp.einsum("skd,sk->sd", found, gates * kept)


def with_one_hot(
    params: Any, tokens: jax.Array, experts: jax.Array, gates: jax.Array, *, capacity: int
) -> jax.Array:
    """Multiplies by one-hot tensors [S, E, C]."""
    places = jax.nn.one_hot(_places(experts), capacity)  # [S, 2, C], 0 beyond the capacity
    chosen = jax.nn.one_hot(experts, EXPERTS)
    dispatch = jnp.einsum("ske,skc->sec", chosen, places)
    combine = jnp.einsum("ske,skc,sk->sec", chosen, places, gates)
    rows = jnp.einsum("sec,sd->ecd", dispatch, tokens)
    return jnp.einsum("ecd,sec->sd", feed_forward(rows, params), combine)


def _sorted(experts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Order of the flat choices by expert, and the number of rows of each expert."""
    flat = experts.reshape(-1)
    return jnp.argsort(flat, stable=True), jnp.bincount(flat, length=EXPERTS).astype(jnp.int32)


def with_ragged_dot(
    params: Any, tokens: jax.Array, experts: jax.Array, gates: jax.Array
) -> jax.Array:
    """Multiplies sorted rows by a library call."""
    order, sizes = _sorted(experts)
    hidden = jax.nn.relu(jax.lax.ragged_dot(tokens[order // 2], params["wi_0"], sizes))
    outputs = jax.lax.ragged_dot(hidden, params["wo_0"], sizes)
    outputs = outputs * gates.reshape(-1)[order][:, None]
    return jnp.zeros_like(tokens).at[order // 2].add(outputs)


def with_blocks(params: Any, tokens: jax.Array, experts: jax.Array, gates: jax.Array) -> jax.Array:
    """Pads the rows of each expert to whole blocks, each of which takes the weights it needs."""
    order, sizes = _sorted(experts)
    block = min(BLOCK, order.shape[0] // EXPERTS)
    num_blocks = order.shape[0] // block + EXPERTS
    padded = (sizes + block - 1) // block * block
    starts, padded_starts = jnp.cumsum(sizes) - sizes, jnp.cumsum(padded) - padded
    expert_of_row = experts.reshape(-1)[order]
    places = jnp.arange(order.shape[0]) - starts[expert_of_row] + padded_starts[expert_of_row]
    slots = jnp.full((num_blocks * block,), tokens.shape[0]).at[places].set(order // 2)
    rows = jnp.take(tokens, slots, axis=0, mode="fill", fill_value=0)
    rows = rows.reshape(num_blocks, block, -1)
    ends = jnp.cumsum(padded) // block
    owner = jnp.minimum(jnp.sum(jnp.arange(num_blocks)[:, None] >= ends, -1), EXPERTS - 1)
    hidden = jax.nn.relu(jnp.einsum("ecd,edf->ecf", rows, params["wi_0"][owner]))
    outputs = jnp.einsum("ecf,efd->ecd", hidden, params["wo_0"][owner])
    outputs = outputs.reshape(num_blocks * block, -1)[places]
    outputs = outputs * gates.reshape(-1)[order][:, None]
    return jnp.zeros_like(tokens).at[order // 2].add(outputs)


def with_all_experts(
    params: Any, tokens: jax.Array, experts: jax.Array, gates: jax.Array
) -> jax.Array:
    """Lets all experts compute all tokens."""
    weights = jnp.sum(jax.nn.one_hot(experts, EXPERTS) * gates[..., None], axis=1)  # [S, E]
    hidden = jax.nn.relu(jnp.einsum("sd,edf->esf", tokens, params["wi_0"]))
    # The gate is applied where it is linear, so that no [E, S, D] exists.
    return jnp.einsum("esf,efd->sd", hidden * weights.T[..., None], params["wo_0"])

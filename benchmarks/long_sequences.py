"""Long sequences: blockwise attention and a chunked loss, against the naive program, and memory.

Pax has its best settings: attention block by block and the loss in chunks of positions, in memory
linear in T. The naive program is that of `by_hand`, which holds all logits. Memory is what a
compiled program allocates besides its arguments and results. Rows without a target show attention
and the loss by themselves.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import by_hand, frame, language_model
from benchmarks.frame import OURS, Row, Settings
from benchmarks.language_model import Sizes
from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax
from praxis.layers.attention.attend import attend
from praxis.layers.attention.mask_spec import AttentionMask

CHUNK = 256


def measure(settings: Settings) -> Iterator[Row]:
    length = settings.choose(1024, 2048)
    sizes = Sizes(
        layers=settings.choose(1, 2),
        width=settings.choose(128, 256),
        vocabulary=settings.choose(2048, 8192),
        batch=1,
        length=length,
        chunk=CHUNK,
        implementation="blockwise",
    )
    yield from against_naive(sizes, settings)
    yield growth(sizes, settings.choose((512, 1024, 2048), (1024, 2048, 4096)))
    for length in settings.choose((512,), (512, 2048, 8192)):
        yield attention(length, settings)
        yield vocabulary_loss(length, settings)


def against_naive(sizes: Sizes, settings: Settings) -> Iterator[Row]:
    """Loss and gradient of a model: time and memory."""
    model = base_layer.instantiate(language_model.config(sizes))
    params = language_model.initial(model, sizes)["params"]
    arguments = {OURS: params, "naive": by_hand.weights_from_pax(params["lm"], sizes)}
    ids = language_model.tokens(sizes)
    losses = {OURS: language_model.loss_of(model), "naive": by_hand.loss_of(sizes)}
    compiled = {
        name: jax.jit(jax.value_and_grad(loss)).lower(arguments[name], ids).compile()
        for name, loss in losses.items()
    }
    calls = {name: lambda name=name: compiled[name](arguments[name], ids) for name in losses}
    frame.same("loss", {name: call()[0] for name, call in calls.items()})
    case = f"loss and gradient, T = {sizes.length}"
    yield frame.compare(
        f"{case}: speed", calls, settings, work=1, unit="steps/s", limit=frame.at_least(1.3)
    )
    mebibytes = {name: frame.temp_bytes(program) / 2**20 for name, program in compiled.items()}
    yield Row(
        f"{case}: memory",
        mebibytes,
        "MiB",
        judged=mebibytes[OURS] / mebibytes["naive"],
        limit=frame.at_most(1 / 3),
    )


def growth(sizes: Sizes, lengths: tuple[int, ...]) -> Row:
    """Memory of loss and gradient against T; how much more than linear it grows."""
    mebibytes = {}
    for length in lengths:
        longer = dataclasses.replace(sizes, length=length)
        model = base_layer.instantiate(language_model.config(longer))
        ids = language_model.tokens(longer)
        params = jax.eval_shape(lambda: language_model.initial(model, longer)["params"])  # noqa: B023
        step = jax.jit(jax.value_and_grad(language_model.loss_of(model)))
        mebibytes[f"T = {length}"] = frame.temp_bytes(step.lower(params, ids).compile()) / 2**20
    first, *_, last = mebibytes.values()
    return Row(
        "memory against T, over linear growth",
        mebibytes,
        "MiB",
        judged=last / first / (lengths[-1] / lengths[0]),
        limit=frame.at_most(1.1),
    )


def attention(length: int, settings: Settings) -> Row:
    """Gradient of causal attention of one sequence: block by block, in a window, all at once."""
    heads = [_normal(seed, 1, length, 4, 64) for seed in range(3)]
    causal = AttentionMask(target_len=length, source_len=length, causal=True)
    window = AttentionMask(target_len=length, source_len=length, causal=True, window=(512, 0))

    def loss(mask: AttentionMask, implementation: str) -> Callable[..., Any]:
        return lambda query, key, value: jnp.sum(
            jnp.sin(attend(query, key, value, mask, implementation=implementation).context)
        )

    cases = {OURS: loss(causal, "blockwise"), "all at once": loss(causal, "reference")}
    return _time_and_memory(
        f"attention, T = {length}",
        cases,
        heads,
        settings,
        alone={"window of 512": loss(window, "blockwise")},
    )


def vocabulary_loss(length: int, settings: Settings) -> Row:
    """Gradient of the loss of one sequence, V = 8192: in chunks, all at once."""
    x, weights = _normal(0, 1, length, 256), jnp.ones([1, length, 1])
    ids = jax.random.randint(jax.random.PRNGKey(1), [1, length, 1], 0, 8192)

    def layer(chunk_size: int | None) -> Any:
        config = pax_fiddle.Config(
            embedding_softmax.SharedEmbeddingSoftmax,
            name="softmax",
            input_dims=256,
            num_classes=8192,
            chunk_size=chunk_size,
        )
        return pax_fiddle.build(config)

    params = layer(None).init(jax.random.PRNGKey(0), x, weights, ids)["params"]

    def loss(chunk_size: int | None) -> Callable[..., Any]:
        softmax = layer(chunk_size)
        return lambda params, x: softmax.apply({"params": params}, x, weights, ids).avg_xent

    cases = {OURS: loss(CHUNK), "all at once": loss(None)}
    return _time_and_memory(f"loss over 8192 classes, T = {length}", cases, [params, x], settings)


def _time_and_memory(
    case: str,
    functions: dict[str, Callable[..., Any]],
    arrays: list[Any],
    settings: Settings,
    alone: dict[str, Callable[..., Any]] | None = None,
) -> Row:
    """Times gradients; `alone` computes something else, of which only the memory is of interest."""
    alone = alone or {}
    numbers = tuple(range(len(arrays)))
    compiled = {
        name: jax.jit(jax.grad(function, argnums=numbers)).lower(*arrays).compile()
        for name, function in {**functions, **alone}.items()
    }
    calls = {name: lambda name=name: compiled[name](*arrays) for name in functions}
    frame.same(case, {name: call() for name, call in calls.items()}, rtol=1e-3)
    sizes = {name: frame.temp_bytes(program) / 2**20 for name, program in compiled.items()}
    note = ", ".join(f"{name} {size:.1f} MiB" for name, size in sizes.items())
    return frame.compare(case, calls, settings, note=note)


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.PRNGKey(seed), shape)

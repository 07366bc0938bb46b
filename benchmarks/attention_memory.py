"""Memory and time of attention, and of the vocabulary loss, against the length of sequences.

Prints two Markdown tables. Memory is what the compiled program allocates besides its arguments and
results, for the forward and the backward pass; time is the best of some runs.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from praxis import pax_fiddle
from praxis.layers import embedding_softmax
from praxis.layers.attention.attend import attend
from praxis.layers.attention.mask_spec import AttentionMask

LENGTHS = flags.DEFINE_list("lengths", ["512", "1024", "2048", "4096", "8192"], "Values of T.")
HEADS = flags.DEFINE_integer("heads", 4, "N.")
WIDTH = flags.DEFINE_integer("width", 64, "H, and a quarter of D of the loss.")
WINDOW = flags.DEFINE_integer("window", 512, "Keys that the third attention sees.")
VOCABULARY = flags.DEFINE_integer("vocabulary", 8192, "V of the loss.")
CHUNK = flags.DEFINE_integer("chunk", 256, "Positions of a chunk of the loss.")
RUNS = flags.DEFINE_integer("runs", 3, "Timed runs, of which the best counts.")
# More than this the naive programs are not run.
LIMIT_GIB = flags.DEFINE_float("limit_gib", 4.0, "Largest memory of a program that is run, GiB.")


def measure(function: Callable[..., Any], *arrays: Any) -> tuple[float, float | None]:
    """Memory in MiB, and time in ms of the gradient of a function; None if it needs too much."""
    gradient = jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))
    compiled = gradient.lower(*arrays).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None  # CPU, GPU and TPU give one
    memory = analysis.temp_size_in_bytes / 2**20
    if memory > LIMIT_GIB.value * 1024:
        return memory, None
    jax.block_until_ready(compiled(*arrays))
    times = []
    for _ in range(RUNS.value):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.perf_counter() - start)
    return memory, 1e3 * min(times)


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.PRNGKey(seed), shape)


def attention(length: int) -> dict[str, tuple[float, float | None]]:
    """Measures causal attention of one sequence."""
    heads = [normal(seed, 1, length, HEADS.value, WIDTH.value) for seed in range(3)]
    causal = AttentionMask(target_len=length, source_len=length, causal=True)
    window = AttentionMask(
        target_len=length, source_len=length, causal=True, window=(WINDOW.value, 0)
    )
    cases = {
        "reference": (causal, "reference"),
        "blockwise": (causal, "blockwise"),
        f"blockwise, window {WINDOW.value}": (window, "blockwise"),
    }

    def loss(mask: AttentionMask, implementation: str) -> Callable[..., Any]:
        return lambda query, key, value: jnp.sum(
            jnp.sin(attend(query, key, value, mask, implementation=implementation).context)
        )

    return {name: measure(loss(*case), *heads) for name, case in cases.items()}


def vocabulary_loss(length: int) -> dict[str, tuple[float, float | None]]:
    """Measures the loss of one sequence."""
    width = 4 * WIDTH.value
    x, weights = normal(0, 1, length, width), jnp.ones([1, length, 1])
    ids = jax.random.randint(jax.random.PRNGKey(1), [1, length, 1], 0, VOCABULARY.value)

    def case(chunk_size: int | None) -> tuple[float, float | None]:
        layer = pax_fiddle.build(
            pax_fiddle.Config(
                embedding_softmax.SharedEmbeddingSoftmax,
                name="softmax",
                input_dims=width,
                num_classes=VOCABULARY.value,
                chunk_size=chunk_size,
            )
        )
        params = layer.init(jax.random.PRNGKey(0), x, weights, ids)["params"]
        return measure(
            lambda params, x: layer.apply({"params": params}, x, weights, ids).avg_xent, params, x
        )

    return {"whole": case(None), f"chunks of {CHUNK.value}": case(CHUNK.value)}


def table(title: str, measured: dict[int, dict[str, tuple[float, float | None]]]) -> list[str]:
    """Lines of a Markdown table."""
    names = list(next(iter(measured.values())))
    header = ["T", *(f"{name}, {unit}" for name in names for unit in ("MiB", "ms"))]
    lines = [
        title,
        "",
        "| " + " | ".join(header) + " |",
        "| " + " | ".join(["---:"] * len(header)) + " |",
    ]
    for length, row in measured.items():
        cells = [str(length)]
        for memory, milliseconds in row.values():
            cells += [f"{memory:.1f}", "-" if milliseconds is None else f"{milliseconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def main(argv: Sequence[str]) -> None:
    del argv
    lengths = [int(length) for length in LENGTHS.value]
    device = jax.devices()[0].device_kind
    title = f"Causal attention, {HEADS.value} heads of width {WIDTH.value}, float32, on {device}"
    lines = table(title, {length: attention(length) for length in lengths})
    title = f"Loss over {VOCABULARY.value} classes, D = {4 * WIDTH.value}, float32, on {device}"
    lines += table(title, {length: vocabulary_loss(length) for length in lengths})
    print("\n".join(lines))


if __name__ == "__main__":
    app.run(main)

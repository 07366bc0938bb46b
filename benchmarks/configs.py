"""Time from a config to a layer, and to the shapes of its variables, of 48 layers one by one.

linen, which has no configs, makes the same model and its shapes for comparison; the number of
parameters has to agree.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import frame, in_linen, language_model
from benchmarks.frame import OURS, Row, Settings
from benchmarks.language_model import Sizes
from praxis import base_layer


def measure(settings: Settings) -> Iterator[Row]:
    sizes = Sizes(layers=48, width=1024, heads=16, vocabulary=32_000, batch=1, length=128)
    turns = settings.choose(3, 11)
    config = language_model.config(sizes)
    base_layer.instantiate(config)  # modules that are imported at first use
    seconds = [frame.seconds_of(lambda: base_layer.instantiate(config)) for _ in range(turns)]
    yield _row("instantiate, 48 layers", {OURS: seconds}, 0.1)

    ids = language_model.tokens(sizes)
    batch = language_model.batch_of(ids)
    shapes = {}

    def abstract_init() -> None:
        model = base_layer.instantiate(config)
        shapes[OURS] = model.abstract_init_with_metadata(batch)["params"]

    def in_flax() -> None:
        model = in_linen.LanguageModel(sizes)
        key = jax.random.PRNGKey(0)
        shapes["linen"] = jax.eval_shape(model.init, key, ids)["params"]

    times: dict[str, list[float]] = {OURS: [], "linen": []}
    for _ in range(turns):
        times[OURS].append(frame.seconds_of(abstract_init))
        times["linen"].append(frame.seconds_of(in_flax))
    frame.same("number of parameters", {name: _size(tree) for name, tree in shapes.items()}, rtol=0)
    yield _row("instantiate and abstract init, 48 layers", times, 2.0)


def _size(shapes: Any) -> int:
    leaves = jax.tree.leaves(shapes, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _row(case: str, times: dict[str, list[float]], bound: float) -> Row:
    medians = {name: sorted(column)[len(column) // 2] for name, column in times.items()}
    return Row(
        case,
        medians,
        "s",
        judged=medians[OURS],
        judged_unit="s",
        spread=frame.quartiles(times[OURS]),
        limit=frame.at_most(bound),
        turns=len(times[OURS]),
    )

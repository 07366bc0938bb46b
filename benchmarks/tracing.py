"""Time to trace and lower loss and gradient, against plain jax.numpy.

Each turn traces functions that JAX has not seen. The compiled programs have to give the same loss.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import by_hand, frame, language_model
from benchmarks.frame import OURS, Row, Settings
from benchmarks.language_model import Sizes
from praxis import base_layer


def measure(settings: Settings) -> Iterator[Row]:
    common: dict[str, Any] = {"width": 64, "vocabulary": 256, "batch": 2, "length": 32}
    for case, sizes, bound in (
        ("12 layers one by one", Sizes(layers=12, **common), 1.5),
        ("48 layers by a scan", Sizes(layers=48, repeated=True, **common), 1.3),
    ):
        model = base_layer.instantiate(language_model.config(sizes))
        params = language_model.initial(model, sizes)["params"]
        weights = by_hand.weights_from_pax(params["lm"], sizes)
        ids = language_model.tokens(sizes)
        losses = {OURS: language_model.loss_of(model), "by hand": by_hand.loss_of(sizes)}
        arguments = {OURS: params, "by hand": weights}
        values = {name: jax.jit(loss)(arguments[name], ids) for name, loss in losses.items()}
        frame.same("loss", values)
        calls = {
            name: functools.partial(_lower, loss, arguments[name], ids)
            for name, loss in losses.items()
        }
        yield frame.compare(case, calls, settings, limit=frame.at_most(bound))


def _lower(loss: Any, weights: Any, ids: jax.Array) -> None:
    """Lowers loss and gradient as a function that no cache knows."""
    jax.jit(jax.value_and_grad(lambda weights, ids: loss(weights, ids))).lower(weights, ids)

"""One update of all weights by Adam and Adafactor, against optax.

Weights and state are donated, as in training. Pax's Adam runs by its own maths, and as
`sharded_adam = False`, which is optax's. Weights have to agree after each of two updates.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import frame
from benchmarks.frame import OURS, Row, Settings
from praxis import base_layer, optimizers, pax_fiddle, schedules

LIMIT = frame.at_most(1.05)
RATE = 1e-3


def measure(settings: Settings) -> Iterator[Row]:
    width, layers = settings.choose((512, 1), (2048, 4))
    shapes = {
        f"layer_{index}/{name}": shape
        for index in range(layers)
        for name, shape in {
            "qkv": (3, width, width),
            "w_1": (width, 4 * width // 2),
            "w_2": (4 * width // 2, width),
            "bias": (width,),
        }.items()
    }
    millions = sum(jnp.prod(jnp.array(shape)).item() for shape in shapes.values()) / 1e6
    constant = pax_fiddle.Config(schedules.Constant)
    adam = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "clip_threshold": 0.0}
    cases = {
        "Adam": (optimizers.Adam, adam, optax.adam(RATE, 0.9, 0.999, 1e-8)),
        "Adam, sharded_adam = False": (
            optimizers.Adam,
            {**adam, "sharded_adam": False},
            optax.adam(RATE, 0.9, 0.999, 1e-8),
        ),
        "Adafactor": (optimizers.Adafactor, {}, optax.adafactor(RATE)),
    }
    for case, (cls, fields, theirs) in cases.items():
        config = pax_fiddle.Config(cls, learning_rate=RATE, lr_schedule=constant, **fields)
        hparams = {name: base_layer.WeightHParams(list(shape)) for name, shape in shapes.items()}
        ours = pax_fiddle.instantiate(config).get_grad_transformation(hparams)
        updates = {OURS: Update(ours, shapes), "optax": Update(theirs, shapes)}
        for _ in range(2):
            frame.same(f"weights after {case}", {name: one() for name, one in updates.items()})
        yield frame.compare(
            case, updates, settings, limit=LIMIT, note=f"{millions:.0f} M parameters"
        )


class Update:
    """Updates of weights by a transformation; each call is one."""

    def __init__(self, transformation: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        """Makes weights and gradients, the same for all transformations."""
        keys = dict(zip(shapes, jax.random.split(jax.random.PRNGKey(0), len(shapes)), strict=True))
        self._weights = {name: _normal(keys[name], shape) for name, shape in shapes.items()}
        self._grads = {name: 0.1 * weight + 0.01 for name, weight in self._weights.items()}
        self._state = transformation.init(self._weights)

        def update(grads: Any, state: Any, weights: Any) -> Any:
            with base_layer.JaxContext.new_context():
                updates, state = transformation.update(grads, state, weights)
            return optax.apply_updates(weights, updates), state

        self._update = jax.jit(update, donate_argnums=(1, 2))

    def __call__(self) -> Any:
        self._weights, self._state = self._update(self._grads, self._state, self._weights)
        return self._weights


def _normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return 0.1 * jax.random.normal(key, shape)

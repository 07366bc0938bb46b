"""Train step of a dense language model: loss, gradient and Adam.

Pax's is the step that the trainer runs, with its metrics and per-example outputs; the others return
loss, weights and optimizer state. What only Pax computes is off in the first row of a size: norms
of gradients and weights, and the check that skips a step whose gradient is not finite. The second
row shows what that costs. Programs go on from their own weights, and their losses have to agree.
The third row is loss and gradient alone.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import by_hand, frame, in_linen, in_nnx, language_model
from benchmarks.frame import OURS, Row, Settings
from benchmarks.language_model import Sizes
from paxml import learners, tasks_lib
from paxml.trainer.train_step import train_step_single_learner
from praxis import base_layer, optimizers, pax_fiddle, schedules

LIMIT = frame.at_most(1.01)
LEARNING_RATE = 1e-3


def measure(settings: Settings) -> Iterator[Row]:
    small = Sizes(layers=4, width=128, vocabulary=1024, batch=4, length=128)
    medium = Sizes(layers=8, width=512, heads=8, vocabulary=8192, batch=4, length=256)
    tiny = Sizes(layers=2, width=128, vocabulary=512, batch=4, length=64)
    for name, sizes in settings.choose([("tiny", tiny)], [("small", small), ("medium", medium)]):
        losses, weights = programs(sizes)
        ids = language_model.tokens(sizes)
        note = f"{_millions(weights[OURS]):.1f} M parameters"
        gradients = {
            key: functools.partial(jax.jit(jax.value_and_grad(loss)), weights[key], ids)
            for key, loss in losses.items()
        }
        frame.same("loss", {key: gradient()[0] for key, gradient in gradients.items()})
        others = {key: OptaxStep(losses[key], weights[key], ids) for key in losses if key != OURS}
        plain = TrainerStep(sizes, weights[OURS], ids, plain=True)
        steps = {OURS: plain, "Pax's defaults": TrainerStep(sizes, weights[OURS], ids), **others}
        for _ in range(3):
            frame.same("loss of a step", {key: step() for key, step in steps.items()})
        times = frame.take_turns(steps, settings)
        compared = {key: key for key in losses}
        yield frame.row_of_times(f"step, {name}", times.of(compared), limit=LIMIT, note=note)
        compared[OURS] = "Pax's defaults"
        case = f"step with all summaries and checks, {name}"
        yield frame.row_of_times(case, times.of(compared), note=note)
        case = f"loss and gradient, {name}"
        yield frame.compare(case, gradients, settings, limit=LIMIT, note=note)


def programs(sizes: Sizes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The loss functions of (weights, tokens), and the weights, by program."""
    model = base_layer.instantiate(language_model.config(sizes))
    params = language_model.initial(model, sizes)["params"]
    weights = by_hand.weights_from_pax(params["lm"], sizes)
    losses: dict[str, Any] = {
        OURS: language_model.loss_of(model),
        "by hand": by_hand.loss_of(sizes),
        "linen": in_linen.loss_of(sizes),
    }
    trees = {OURS: params, "by hand": weights, "linen": in_linen.weights_of(weights, sizes)}
    losses["nnx"], trees["nnx"] = in_nnx.make(weights, sizes)
    try:
        from benchmarks import in_equinox
    except ImportError:
        print("  equinox is not installed (pip install '.[bench]'): left out")
    else:
        losses["equinox"], trees["equinox"] = in_equinox.make(weights, sizes)
    return losses, trees


class OptaxStep:
    """A program's step with `optax.adam`; each call is an update and returns its loss."""

    def __init__(self, loss: Any, weights: Any, ids: jax.Array) -> None:
        """Compiles nothing yet; the weights are copied, since a step donates them."""
        optimizer = optax.adam(LEARNING_RATE)
        self._ids = ids
        self._weights = jax.tree.map(jnp.copy, weights)
        self._state = optimizer.init(self._weights)

        def step(weights: Any, state: Any, ids: jax.Array) -> Any:
            value, grads = jax.value_and_grad(loss)(weights, ids)
            updates, state = optimizer.update(grads, state, weights)
            return optax.apply_updates(weights, updates), state, value

        self._step = jax.jit(step, donate_argnums=(0, 1))

    def __call__(self) -> jax.Array:
        self._weights, self._state, loss = self._step(self._weights, self._state, self._ids)
        jax.block_until_ready(self._weights)
        return loss


class TrainerStep:
    """The trainer's step; each call is an update and returns its loss."""

    def __init__(self, sizes: Sizes, params: Any, ids: jax.Array, *, plain: bool = False) -> None:
        """Makes the task and its state; compiles nothing yet. `plain`: nothing but the update."""
        config = task_config(sizes)
        if plain:
            config.train.variable_norm_summary = False
            config.train.learner.set(
                grad_norm_summary=False,
                var_norm_summary=False,
                check_valid_step=False,
                enable_skip_step_on_gradient_anomalies=False,
            )
        task = pax_fiddle.instantiate(config)
        self._batch = language_model.batch_of(ids)
        hparams = task.model.abstract_init_with_metadata(self._batch)
        variables = {base_layer.PARAMS: jax.tree.map(jnp.copy, params)}
        self._state = task.create_train_state(variables, hparams)

        def step(state: Any, key: jax.Array, batch: Any) -> Any:
            return train_step_single_learner(task, state, key, batch, var_weight_hparams=hparams)

        self._step = jax.jit(step, donate_argnums=0)
        self._key = jax.random.PRNGKey(3)

    def __call__(self) -> jax.Array:
        self._state, out = self._step(self._state, self._key, self._batch)
        jax.block_until_ready((self._state, out))
        return out.loss


def task_config(sizes: Sizes) -> pax_fiddle.Config[tasks_lib.SingleTask]:
    """A task with Adam as optax has it."""
    task = pax_fiddle.Config(tasks_lib.SingleTask, name="task", model=language_model.config(sizes))
    task.train.learner = pax_fiddle.Config(
        learners.Learner,
        loss_name="total_loss",
        optimizer=pax_fiddle.Config(
            optimizers.Adam,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            clip_threshold=0.0,
            learning_rate=LEARNING_RATE,
            lr_schedule=pax_fiddle.Config(schedules.Constant),
        ),
    )
    return task


def _millions(params: Any) -> float:
    return sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6

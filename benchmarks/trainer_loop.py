"""Steps of a training run against the same steps in a bare loop, at about 20 ms a step.

The run is the whole trainer, with its event files and its input on a thread. After every few of
its steps, `early_stopping_fn` waits for them and lets the bare loop take as many: the jitted step
of the trainer, its state donated, over batches that lie on the device. Both start from the same
weights, and their losses have to agree at the end. In the second case the input takes 10 ms for a
batch, which its thread has to hide.
"""

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import frame
from benchmarks.frame import OURS, Row, Settings
from paxml import base_experiment, learners, tasks_lib, train
from paxml.trainer.train_step import train_step_single_learner
from praxis import base_input, base_layer, base_model, optimizers, pax_fiddle, py_utils, schedules

LIMIT = frame.at_most(1.02)
WIDTH = 256
BATCH = 128
STEP_SECONDS = 0.02
# Steps between turns, and of the first turn, which is not counted.
STEPS_A_TURN = 10


def measure(settings: Settings) -> Iterator[Row]:
    depth = calibrated_depth()
    turns = settings.choose(3, 15)
    for case, delay in (("input at once", 0.0), ("input takes 10 ms a batch", 0.01)):
        times = race(depth, delay, turns)
        step = sorted(times["bare loop"])[turns // 2] * 1e3
        yield frame.row_of_times(case, times, limit=LIMIT, note=f"{step:.0f} ms a step")


def race(depth: int, delay: float, turns: int) -> dict[str, list[float]]:
    """Seconds of a step, by turn, of the run and of the bare loop."""
    experiment = Loop(depth, delay, steps=STEPS_A_TURN * (turns + 1))
    pacer = Pacer(experiment)
    with tempfile.TemporaryDirectory() as directory:
        train.train_and_evaluate(
            experiment,
            directory,
            enable_checkpoint_saving=False,
            early_stopping_fn=pacer.after_step,
        )
    frame.same("loss of the last step", {OURS: pacer.run_loss, "bare loop": pacer.bare_loss})
    return {OURS: pacer.run_seconds[1:], "bare loop": pacer.bare_seconds[1:]}


class Pacer:
    """Lets run and bare loop take turns, and times both."""

    def __init__(self, experiment: "Loop") -> None:
        """Makes the bare loop and compiles it."""
        self._bare = BareLoop(experiment)
        self._start = 0.0
        self.run_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.run_loss = self.bare_loss = float("nan")

    def after_step(
        self, metrics: dict[str, float], mode: Any, step: int, is_last: bool, directory: Any
    ) -> bool:
        """Called by the run after each step."""
        del mode, is_last, directory
        if "train/loss" in metrics:
            self.run_loss = float(metrics["train/loss"])
        if step % STEPS_A_TURN:
            return False
        # Whatever the run has sent to the device is done before the turn ends.
        jax.block_until_ready(jax.live_arrays())
        now = time.perf_counter()
        self.run_seconds.append((now - self._start) / STEPS_A_TURN)
        self.bare_loss = self._bare.run(STEPS_A_TURN)
        self._start = time.perf_counter()
        self.bare_seconds.append((self._start - now) / STEPS_A_TURN)
        return False


class BareLoop:
    """The step of the trainer in a loop, and nothing else."""

    def __init__(self, experiment: "Loop") -> None:
        """Makes the state and compiles the step."""
        task = pax_fiddle.instantiate(experiment.task())
        batch = first_batch()
        hparams = task.model.abstract_init_with_metadata(batch)
        variables = base_layer.maybe_unbox_value(task.model.init(jax.random.PRNGKey(0), batch))
        self._state = task.create_train_state(variables, hparams)
        self._batch = jax.device_put(batch)

        def step(state: Any, batch: Any) -> Any:
            key = jax.random.PRNGKey(0)
            return train_step_single_learner(task, state, key, batch, var_weight_hparams=hparams)

        self._step = jax.jit(step, donate_argnums=0).lower(self._state, self._batch).compile()

    def run(self, steps: int) -> float:
        """Takes steps, waits for them, and returns the loss of the last."""
        loss = float("nan")
        for _ in range(steps):
            self._state, out = self._step(self._state, self._batch)
            loss = out.loss
        jax.block_until_ready(self._state)
        return float(loss)


# ---- the run ------------------------------------------------------------------------------------


def first_batch() -> py_utils.NestedMap:
    """The one batch of the data."""
    x = np.random.default_rng(0).standard_normal((BATCH, WIDTH)).astype(np.float32)
    return py_utils.NestedMap(x=x)


class SlowInput(base_input.BaseInput):
    """The same batch again and again, each after a delay.

    Attributes:
      delay: Seconds that a batch takes.
    """

    delay: float = 0.0

    def get_next(self) -> py_utils.NestedMap:
        time.sleep(self.delay)
        return first_batch()


class Chain(base_model.BaseModel):
    """Multiplies by a matrix `depth` times; its first weights do not depend on a random key.

    Attributes:
      depth: Number of products, which sets the time of a step.
    """

    depth: int = 1

    def setup(self) -> None:
        zero = base_layer.WeightInit.Constant(0.0)
        self.create_variable("w", base_layer.WeightHParams([WIDTH, WIDTH], init=zero))

    def compute_predictions(self, input_batch: py_utils.NestedMap) -> jax.Array:
        matrix = self.theta.w + jnp.eye(WIDTH)
        return products(input_batch.x, matrix, self.depth)

    def compute_loss(self, predictions: jax.Array, input_batch: py_utils.NestedMap) -> Any:
        loss = jnp.mean(jnp.square(predictions - 2 * input_batch.x))
        scalars = py_utils.NestedMap(loss=(loss, jnp.float32(BATCH)))
        return scalars, py_utils.NestedMap()


def products(x: jax.Array, matrix: jax.Array, depth: int) -> jax.Array:
    return jax.lax.fori_loop(0, depth, lambda _, x: jnp.tanh(x @ matrix), x)


def calibrated_depth() -> int:
    """How many products make a step of about `STEP_SECONDS`."""
    x, matrix = jnp.ones([BATCH, WIDTH]), jnp.eye(WIDTH)

    def loss(matrix: jax.Array) -> jax.Array:
        return jnp.sum(products(x, matrix, 20))

    gradient = jax.jit(jax.grad(loss))
    jax.block_until_ready(gradient(matrix))
    seconds = min(frame.seconds_of(lambda: gradient(matrix), calls=3) for _ in range(5))
    return max(1, round(20 * STEP_SECONDS / seconds))


class Loop(base_experiment.BaseExperiment):
    """The run."""

    def __init__(self, depth: int, delay: float, steps: int) -> None:
        """As in `Chain` and `SlowInput`; `steps` is the length of the run."""
        super().__init__()
        self._depth, self._delay, self._steps = depth, delay, steps

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        return [
            pax_fiddle.Config(
                SlowInput, name="train", is_training=True, batch_size=BATCH, delay=self._delay
            )
        ]

    def task(self) -> pax_fiddle.Config[tasks_lib.SingleTask]:
        model = pax_fiddle.Config(Chain, name="chain", depth=self._depth)
        task = pax_fiddle.Config(tasks_lib.SingleTask, name="loop", model=model)
        task.train.set(
            learner=pax_fiddle.Config(
                learners.Learner,
                loss_name="loss",
                optimizer=pax_fiddle.Config(
                    optimizers.Adam,
                    learning_rate=1e-3,
                    lr_schedule=pax_fiddle.Config(schedules.Constant),
                ),
            ),
            num_train_steps=self._steps,
            eval_interval_steps=0,
        )
        return task

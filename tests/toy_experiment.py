"""A run that takes seconds: linear regression with dropout and a running mean.

Batch n depends only on n, so that a resumed run can be compared with one that never stopped.
"""

import jax.numpy as jnp
import numpy as np

from paxml import base_experiment, experiment_registry, learners, tasks_lib
from praxis import (
    base_input,
    base_layer,
    base_model,
    optimizers,
    pax_fiddle,
    py_utils,
    schedules,
)
from praxis.layers import stochastics

FEATURES = 3


class CountingInput(base_input.BaseInput):
    """Batch n is drawn with seed n. Its state is the number of batches taken.

    Attributes:
      num_batches: Batches until the data ends; None for endless data.
    """

    num_batches: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._taken = 0

    def get_next(self) -> py_utils.NestedMap:
        if self._taken == self.num_batches:
            raise StopIteration
        rng = np.random.default_rng(self._taken)
        assert self.batch_size is not None
        x = rng.standard_normal((self.batch_size, FEATURES)).astype(np.float32)
        self._taken += 1
        return py_utils.NestedMap(x=x, y=x.sum(-1) + 1.0)

    def reset(self) -> None:
        super().reset()
        self._taken = 0

    def _get_state_internal(self) -> bytes:
        return str(self._taken).encode()

    def _set_state_internal(self, state: bytes) -> None:
        self._taken = int(state)


class StatelessInput(CountingInput):
    """The same data from an input that cannot tell its position."""

    def _get_state_internal(self) -> bytes:
        raise NotImplementedError

    def _set_state_internal(self, state: bytes) -> None:
        raise NotImplementedError


class Regression(base_model.BaseModel):
    """w x + b with dropout on x; keeps a running mean of x.

    Attributes:
      keep_prob: Probability of keeping an entry of x.
      nan_at: A batch whose first target is above this has NaN features; None never happens.
    """

    keep_prob: float = 0.5
    nan_at: float | None = None

    def setup(self) -> None:
        weight = base_layer.WeightHParams
        self.create_variable("w", weight([FEATURES], init=base_layer.WeightInit.Gaussian(1.0)))
        self.create_variable("b", weight([], init=base_layer.WeightInit.Constant(0.0)))
        self.create_variable(
            "mean",
            weight(
                [FEATURES],
                init=base_layer.WeightInit.Constant(0.0),
                collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            ),
            trainable=False,
        )
        dropout = pax_fiddle.Config(stochastics.Dropout, keep_prob=self.keep_prob)
        self.create_child("dropout", dropout)

    def compute_predictions(self, input_batch):
        x = input_batch.x
        if self.nan_at is not None:
            x = jnp.where(input_batch.y[0] > self.nan_at, jnp.nan, x)
        if not self.do_eval:
            self.update_var("mean", 0.9 * self.get_var("mean") + 0.1 * jnp.mean(x, 0))
        return self.dropout(x) @ self.theta.w + self.theta.b

    def compute_loss(self, predictions, input_batch):
        error = jnp.square(predictions - input_batch.y)
        loss = jnp.mean(error)
        self.add_summary("bias", self.theta.b)
        count = jnp.float32(error.shape[0])
        scalars = py_utils.NestedMap(loss=(loss, count), mae=(jnp.mean(jnp.sqrt(error)), count))
        return scalars, {"error": error}


class Sharded(Regression):
    """The same model with a matrix that a mesh splits, its width not a multiple of the axis."""

    def setup(self):
        super().setup()
        self.create_variable(
            "m",
            base_layer.WeightHParams(
                [5, 3],
                tensor_split_dims_mapping=("mdl", None),
                mesh_shape=self.mesh_shape,
            ),
        )

    def compute_predictions(self, input_batch):
        return super().compute_predictions(input_batch) + (input_batch.x @ self.theta.m.T).sum(-1)


@experiment_registry.register(tags=["toy"])
class Toy(base_experiment.BaseExperiment):
    """Ten steps; saves at 4, evaluates at 5, summarizes at 2."""

    INPUT = CountingInput
    BATCH = 8
    NUM_BATCHES = None
    MODEL = Regression
    STEPS = 10
    SAVE = 4
    EVAL = 5
    SUMMARY = 2
    MESH = None
    SEED = 1234

    def datasets(self):
        make = pax_fiddle.Config
        return [
            make(
                self.INPUT,
                name="train",
                is_training=True,
                batch_size=self.BATCH,
                num_batches=self.NUM_BATCHES,
            ),
            make(
                CountingInput,
                name="test",
                batch_size=self.BATCH,
                num_batches=2,
                reset_for_eval=True,
            ),
        ]

    def task(self):
        task = pax_fiddle.Config(tasks_lib.SingleTask, name="toy")
        task.model = pax_fiddle.Config(self.MODEL, name="regression")
        if self.MESH is not None:
            task.model.ici_mesh_shape = self.MESH
            task.model.mesh_axis_names = ("replica", "data", "mdl")
        task.train.learner = pax_fiddle.Config(
            learners.Learner,
            loss_name="loss",
            optimizer=pax_fiddle.Config(
                optimizers.Adam,
                learning_rate=0.1,
                lr_schedule=pax_fiddle.Config(schedules.Linear, start=(0, 1.0), limit=(10, 0.0)),
            ),
        )
        task.train.num_train_steps = self.STEPS
        task.train.save_interval_steps = self.SAVE
        task.train.eval_interval_steps = self.EVAL
        task.train.summary_interval_steps = self.SUMMARY
        task.train.random_seed = self.SEED
        return task


def variant(**settings):
    """A Toy with other settings."""
    return type("Variant", (Toy,), settings)()

"""The run of `toy_experiment`, its batches shared out among processes.

The rows of all processes together are the batch that one process would take, in its order, so
that runs of any number of processes can be compared. The environment can make a process hurt
itself: PAX_TEST_HURT = `PROCESS:STEP:SIGNAL`.
"""

import os
import signal
import time

import jax
import toy_experiment

from paxml import experiment_registry, programs
from praxis import base_layer, pax_fiddle, py_utils

ROWS = 8
HURT = "PAX_TEST_HURT"


class Rows(toy_experiment.CountingInput):
    """The rows of this process, of batches drawn with the seed of their number."""

    def get_next(self) -> py_utils.NestedMap:
        mine, self.batch_size = self.batch_size, ROWS
        assert mine is not None
        batch = super().get_next()
        self.batch_size = mine
        first = mine * self.infeed_host_index
        return batch.Transform(lambda x: x[first : first + mine])


class SharedRows(Rows):
    """Continues with any number of processes, since all have taken the same batches."""

    def join_states(self, states):
        (state,) = set(states)
        return state


class Wide(toy_experiment.Regression):
    """The same model with a matrix that the devices share out."""

    def setup(self):
        super().setup()
        hparams = base_layer.WeightHParams(
            [ROWS, toy_experiment.FEATURES],
            tensor_split_dims_mapping=("data", None),
            mesh_shape=self.mesh_shape,
        )
        self.create_variable("m", hparams)

    def compute_predictions(self, input_batch):
        return super().compute_predictions(input_batch) + (input_batch.x @ self.theta.m.T).sum(-1)


class Hurt(programs.SingleTaskTrainProgram):
    """Sends this process the signal that the environment names."""

    def update_state(self, state, step):
        process, at, name = os.environ.get(HURT, "-1:0:SIGINT").split(":")
        if (int(process), int(at)) == (jax.process_index(), step):
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(2)  # JAX looks once a second whether it was asked to stop
        return super().update_state(state, step)


@experiment_registry.register
class Shared(toy_experiment.Toy):
    """All devices on the axis `data`; a summary of each step."""

    INPUT = SharedRows
    MODEL = Wide
    SUMMARY = 1
    EVAL = 0

    def datasets(self):
        return [
            pax_fiddle.Config(
                self.INPUT,
                name="train",
                is_training=True,
                batch_size=ROWS // jax.process_count(),
            )
        ]

    def task(self):
        self.MESH = [1, jax.device_count(), 1]
        return super().task()

    def train_programs(self):
        return [Hurt()]


@experiment_registry.register
class NotJoined(Shared):
    """Its input only continues with as many processes."""

    INPUT = Rows

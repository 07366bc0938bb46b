"""The run of the scale test: a small language model whose batches do not depend on processes."""

import os
import signal
import time
from typing import ClassVar

import jax
import numpy as np

from paxml import experiment_registry, programs
from paxml.tasks.lm.adam import TransformerLmSpmdAdam
from praxis import base_input, pax_fiddle, py_utils

ROWS = 16  # B, of all processes together
LENGTH = 31  # T

# `PROCESS:STEP:SIGNAL`: a signal that this process sends itself before that step.
HURT = "PAX_SCALE_HURT"


class Sequences(base_input.BaseInput):
    """Each token follows from the one before it, but for one in ten.

    Batch n is drawn with seed n; a process takes the rows that are its own.

    Attributes:
      vocab_size: V.
    """

    vocab_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._taken = 0

    def get_next(self) -> py_utils.NestedMap:
        rng = np.random.default_rng(self._taken)
        self._taken += 1
        tokens = rng.integers(1, self.vocab_size, (ROWS, LENGTH + 1), dtype=np.int32)
        follows = rng.random(tokens.shape) < 0.9
        for t in range(1, LENGTH + 1):
            following = (3 * tokens[:, t - 1] + 5) % (self.vocab_size - 1) + 1
            tokens[:, t] = np.where(follows[:, t], following, tokens[:, t])
        first = self._batch_rows * self.infeed_host_index
        tokens = tokens[first : first + self._batch_rows]
        shape = tokens[:, 1:].shape
        return py_utils.NestedMap(
            ids=tokens[:, :-1],
            labels=tokens[:, 1:],
            paddings=np.zeros(shape, np.float32),
            weights=np.ones(shape, np.float32),
            segment_ids=np.ones(shape, np.int32),
            segment_pos=np.tile(np.arange(LENGTH, dtype=np.int32), (shape[0], 1)),
        )

    def _get_state_internal(self) -> bytes:
        return str(self._taken).encode()

    def _set_state_internal(self, state: bytes) -> None:
        self._taken = int(state)


class Hurt(programs.SingleTaskTrainProgram):
    """Sends this process the signal that the environment names."""

    def update_state(self, state: programs.TrainState, step: int) -> programs.TrainState:
        process, at, name = os.environ.get(HURT, "-1:0:SIGKILL").split(":")
        if (int(process), int(at)) == (jax.process_index(), step):
            print(f"hurt at {time.time():.3f}", flush=True)
            os.kill(os.getpid(), signal.Signals[name])
        return super().update_state(state, step)


@experiment_registry.register
class Scale(TransformerLmSpmdAdam):
    """Two layers; 100 steps, saved every 10, on the mesh that `--set ICI_MESH_SHAPE` gives."""

    ICI_MESH_SHAPE: ClassVar = (1, 1, 1)
    DCN_MESH_SHAPE: ClassVar = None
    VOCAB_SIZE: ClassVar = 67
    NUM_LAYERS: ClassVar = 2
    MODEL_DIMS: ClassVar = 64
    NUM_HEADS: ClassVar = 4
    HIDDEN_DIMS: ClassVar = 128
    LEARNING_RATE: ClassVar = 3e-3
    WARMUP_STEPS: ClassVar = 20
    MAX_STEPS: ClassVar = 100
    SUMMARY_INTERVAL_STEPS: ClassVar = 1
    CHECKPOINT_EVERY_N_STEPS: ClassVar = 10
    EVAL_INTERVAL_STEPS: ClassVar = 0

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        return [
            pax_fiddle.Config(
                Sequences,
                name="train",
                is_training=True,
                batch_size=ROWS // jax.process_count(),
                vocab_size=self.VOCAB_SIZE,
            )
        ]

    def train_programs(self) -> list[Hurt]:
        return [Hurt()]

"""GPT-3 with the learning rates of MLPerf Training, which follow from the global batch."""

import math
from collections.abc import Sequence
from typing import ClassVar

from paxml.task.single_task import SingleTask
from paxml.tasks.batch import mesh_size
from paxml.tasks.lm.gpt3 import Gpt3
from paxml.tasks.lm.optimizer import warmup_then_cosine
from praxis import pax_fiddle

REFERENCE_BATCH = 1536  # rows, to which WARMUP_STEPS and DECAY_END belong
LARGEST_SMALL_BATCH = 3584  # rows, up to which the smaller learning rate is used


class Gpt3MLPerf(Gpt3):
    """The schedule counts rows, not steps, and the learning rate grows with the batch.

    Checkpoints are saved at every other evaluation.
    """

    PERCORE_BATCH_SIZE: ClassVar[int | float]
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None]
    EVAL_INTERVAL_STEPS: ClassVar[int]
    MIN_RATIO: ClassVar[float]

    def global_batch_size(self) -> int:
        """Rows in a batch of all devices."""
        return round(self.PERCORE_BATCH_SIZE * (mesh_size(self.ICI_MESH_SHAPE) or 1))

    def task(self) -> pax_fiddle.Config[SingleTask]:
        task = super().task()
        batch = self.global_batch_size()
        task.train.save_interval_steps = 2 * self.EVAL_INTERVAL_STEPS
        task.train.learner.optimizer.set(
            learning_rate=2e-5 if batch <= LARGEST_SMALL_BATCH else 3e-5,
            lr_schedule=warmup_then_cosine(
                warmup_steps=math.ceil(self.WARMUP_STEPS * REFERENCE_BATCH / batch),
                decay_end=math.ceil(self.DECAY_END * REFERENCE_BATCH / batch),
                min_ratio=self.MIN_RATIO,
            ),
        )
        return task

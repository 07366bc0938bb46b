"""Language models without a mesh: all devices hold all weights and split the batch."""

from typing import ClassVar

from paxml.task.single_task import SingleTask
from paxml.tasks.lm.optimizer import set_default_adam
from paxml.tasks.lm.transformer import TransformerSettings
from praxis import pax_fiddle


class TransformerLmPmapAdam(TransformerSettings):
    """A language model of 32 layers, trained with Adam."""

    NUM_LAYERS: ClassVar[int] = 32
    NUM_HEADS: ClassVar[int | None] = 16
    MODEL_DIMS: ClassVar[int] = 1024
    DIMS_PER_HEAD: ClassVar[int | None] = None
    LEARNING_RATE: ClassVar[float] = 1e-3

    def set_optimizer(self, task: pax_fiddle.Config[SingleTask]) -> None:
        set_default_adam(task, self.LEARNING_RATE, self.WEIGHT_DECAY)

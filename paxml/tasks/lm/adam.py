"""Language models trained with Adam, in float32 unless a subclass says otherwise."""

from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.task.single_task import SingleTask
from paxml.tasks.lm.optimizer import (
    set_optimizer,
    warmup_then_cosine,
    warmup_then_exponential,
)
from paxml.tasks.lm.spmd import Pipelined, TransformerLmSpmdAdafactor
from praxis import optimizers, pax_fiddle


class TransformerLmSpmdAdam(TransformerLmSpmdAdafactor):
    """A language model on a mesh of replicas, data and model.

    Attributes:
      ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON: Of Adam.
      ADAM_CLIP_THRESHOLD: Largest root mean square of an update, before the learning rate.
      CLIP_GRADIENT_NORM: Largest norm of the gradient; 0 for none.
      COSINE: A cosine decay, not an exponential one.
      WARMUP_STEPS, DECAY_END, MIN_RATIO: Of the learning rate.
    """

    NUM_LAYERS: ClassVar[int] = 32
    NUM_HEADS: ClassVar[int | None] = 16
    MODEL_DIMS: ClassVar[int] = 1024
    DIMS_PER_HEAD: ClassVar[int | None] = None
    FPROP_DTYPE: ClassVar[Any] = jnp.float32

    LEARNING_RATE: ClassVar[float] = 1e-3
    WEIGHT_DECAY: ClassVar[float] = 1e-3
    ADAM_BETA1: ClassVar[float] = 0.9
    ADAM_BETA2: ClassVar[float] = 0.99
    ADAM_EPSILON: ClassVar[float] = 1e-6
    ADAM_CLIP_THRESHOLD: ClassVar[float] = 1.0
    CLIP_GRADIENT_NORM: ClassVar[float] = 0.0
    COSINE: ClassVar[bool] = False
    WARMUP_STEPS: ClassVar[int] = 4000
    DECAY_END: ClassVar[int] = 300_000
    MIN_RATIO: ClassVar[float] = 0.1

    def set_optimizer(self, task: pax_fiddle.Config[SingleTask]) -> None:
        schedule = warmup_then_cosine if self.COSINE else warmup_then_exponential
        optimizer = pax_fiddle.Config(
            optimizers.Adam,
            beta1=self.ADAM_BETA1,
            beta2=self.ADAM_BETA2,
            epsilon=self.ADAM_EPSILON,
            clip_threshold=self.ADAM_CLIP_THRESHOLD,
            clip_gradient_norm_to_value=self.CLIP_GRADIENT_NORM,
            decoupled_weight_decay=self.WEIGHT_DECAY,
            learning_rate=self.LEARNING_RATE,
            lr_schedule=schedule(
                warmup_steps=self.WARMUP_STEPS,
                decay_end=self.DECAY_END,
                min_ratio=self.MIN_RATIO,
            ),
        )
        set_optimizer(task, optimizer)


class TransformerLmSpmdPipelineAdam(Pipelined, TransformerLmSpmdAdam):
    """A pipelined language model on a mesh of stages, replicas, data and model."""

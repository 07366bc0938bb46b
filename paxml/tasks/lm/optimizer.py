"""Optimizers of the shipped language models, put into the config of a task."""

from typing import Any

from paxml.task.single_task import SingleTask
from praxis import optimizers, pax_fiddle, schedules

TaskConfig = pax_fiddle.Config[SingleTask]


def warmup_then_exponential(
    *, warmup_steps: int, decay_end: int, min_ratio: float
) -> pax_fiddle.Config[schedules.BaseSchedule]:
    """A ramp to 1, then right away a geometric decay to `min_ratio`."""
    return pax_fiddle.Config(
        schedules.LinearRampupExponentialDecay,
        warmup_steps=warmup_steps,
        decay_start=warmup_steps + 1,
        decay_end=decay_end,
        min_ratio=min_ratio,
        max=1.0,
    )


def warmup_then_cosine(
    *, warmup_steps: int, decay_end: int, min_ratio: float
) -> pax_fiddle.Config[schedules.BaseSchedule]:
    """A ramp to 1, then right away half a cosine wave to `min_ratio`."""
    return pax_fiddle.Config(
        schedules.LinearRampupCosineDecay,
        warmup_steps=warmup_steps,
        decay_start=warmup_steps + 1,
        decay_end=decay_end,
        min_ratio=min_ratio,
        max=1.0,
    )


def set_optimizer(task: TaskConfig, optimizer: Any, *, loss_name: str = "total_loss") -> None:
    """Sets the loss and the config of the optimizer of a task."""
    task.train.learner.set(loss_name=loss_name, optimizer=optimizer)


def set_default_adam(
    task: TaskConfig, learning_rate: float, weight_decay: float, *, loss_name: str = "total_loss"
) -> None:
    """Sets Adam with a warm-up over 4000 steps and a decay to a tenth until step 300000.

    Args:
      task: Config of the task, which is changed.
      learning_rate: The largest one.
      weight_decay: Share of a weight that is taken off, times the learning rate.
      loss_name: The metric to minimise.
    """
    optimizer = pax_fiddle.Config(
        optimizers.Adam,
        beta1=0.9,
        beta2=0.99,
        decoupled_weight_decay=weight_decay,
        clip_gradient_norm_to_value=5.0,
        learning_rate=learning_rate,
        lr_schedule=warmup_then_exponential(warmup_steps=4000, decay_end=300_000, min_ratio=0.1),
    )
    set_optimizer(task, optimizer, loss_name=loss_name)


def set_adafactor(task: TaskConfig, learning_rate: float, weight_decay: float) -> None:
    """Sets Adafactor with a warm-up over 4000 steps and a decay to a tenth until step 100000.

    Args:
      task: Config of the task, which is changed.
      learning_rate: The largest one.
      weight_decay: Share of a weight that is taken off, times the learning rate.
    """
    optimizer = pax_fiddle.Config(
        optimizers.ShardedAdafactor,
        decay_method="adam",
        decay_adam=0.99,
        beta1=0.9,
        weight_decay=weight_decay,
        clip_gradient_norm_to_value=5.0,
        learning_rate=learning_rate,
        lr_schedule=warmup_then_exponential(warmup_steps=4000, decay_end=100_000, min_ratio=0.1),
    )
    set_optimizer(task, optimizer)

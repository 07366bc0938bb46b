"""Any optax transformation as an optimizer whose state is laid out like the variables."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    with_partition_spec,
)


class ShardedOptax(BaseOptimizer):
    """A function of optax, or one like it, with the learning rate and the schedule of its config.

    Leaves of the state that have the path and the shape of a variable are sharded like it; others
    are held whole on every device. Contrary to `OptaxOptimizer`, `learning_rate * lr_schedule`
    drives the transformation itself.

    Attributes:
      make: makes the transformation, e.g. `optax.adamw`. It is called with the learning rate, a
        function of the count of updates, as `learning_rate`. Where only a number will do, write
        `optax.inject_hyperparams(optax.sm3)`. Required.
      arguments: further keyword arguments of `make`.

    Raises:
      ValueError: when built, if there is no `make`, or if `arguments` hold a learning rate.

    Example:
      >>> import optax
      >>> from praxis import optimizers, pax_fiddle, schedules
      >>> config = pax_fiddle.Config(
      ...     optimizers.ShardedOptax,
      ...     make=optax.nadamw,
      ...     arguments={"b2": 0.98},
      ...     learning_rate=1e-3,
      ...     lr_schedule=pax_fiddle.Config(schedules.Constant),
      ... )
      >>> transformation = pax_fiddle.build(config).get_grad_transformation()
    """

    make: Callable[..., optax.GradientTransformation] | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.make is None:
            raise ValueError(
                "ShardedOptax: make is None. Set it to a function that makes an optax "
                "transformation, e.g. config.make = optax.adamw."
            )
        if "learning_rate" in self.arguments:
            raise ValueError(
                f"ShardedOptax: arguments hold learning_rate = {self.arguments['learning_rate']}. "
                f"Set config.learning_rate and config.lr_schedule instead."
            )

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        assert self.make is not None  # checked when built
        return with_partition_spec(self.make(learning_rate=lr, **self.arguments))

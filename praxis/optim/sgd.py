"""Stochastic gradient descent, with and without momentum."""

import optax

from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    with_partition_spec,
)


def sharded_sgd(
    learning_rate_fn: LearningRateFn, momentum: float | None = None, nesterov: bool = False
) -> ShardedGradientTransformation:
    """`optax.sgd` with a described state."""
    return with_partition_spec(optax.sgd(learning_rate_fn, momentum, nesterov))


class Sgd(BaseOptimizer):
    """Steps against the gradient, or against a trace m <- momentum * m + g of gradients.

    Attributes:
      momentum: decay of the trace; None for no trace.
      nesterov: steps against g + momentum * m instead of m.
    """

    momentum: float | None = None
    nesterov: bool = False

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        return sharded_sgd(lr, self.momentum, self.nesterov)


class ShardedSgd(Sgd):
    """`Sgd` under the name it has in configs of models over several devices."""

"""Adagrad: Duchi et al., "Adaptive Subgradient Methods", JMLR 2011."""

import optax

from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    with_partition_spec,
)


def sharded_adagrad(
    learning_rate_fn: LearningRateFn, initial_accumulator_value: float, epsilon: float
) -> ShardedGradientTransformation:
    """`optax.adagrad` with a described state."""
    return with_partition_spec(optax.adagrad(learning_rate_fn, initial_accumulator_value, epsilon))


class Adagrad(BaseOptimizer):
    """Gradients divided by the root of the sum of their squares.

    Attributes:
      initial_accumulator_value: the sum at the start.
      epsilon: added under the root.
    """

    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-10

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        return sharded_adagrad(lr, self.initial_accumulator_value, self.epsilon)


class ShardedAdagrad(Adagrad):
    """`Adagrad` with smaller constants.

    Attributes:
      initial_accumulator_value: the sum at the start.
      epsilon: added under the root.
    """

    initial_accumulator_value: float = 1e-12
    epsilon: float = 1e-12

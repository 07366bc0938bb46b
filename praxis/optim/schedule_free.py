"""Schedule-free Adam: an average of the weights in place of a falling learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    with_partition_spec,
)
from praxis.optim.trees import is_masked


class ScheduleFree(BaseOptimizer):
    """`optax.contrib.schedule_free` around Adam.

    Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682. The schedule should warm up
    and then stay. The variables in training are between a fast sequence and its average; evaluate
    at the average, which `schedule_free_eval_params` gives.

    Attributes:
      beta1: how near the variables are to the average, above 0; 1 for the average itself.
      beta2: decay of the mean of squared gradients.
      epsilon: added to the root of the second moment.
      weight_decay: times the variable, added before the learning rate. It acts on the fast
        sequence, as in the paper.
      weight_power: the average weighs a step by this power of the largest learning rate so far.
      sequence_dtype: type of the fast sequence; None for that of the variable.

    Raises:
      ValueError: when built, if `beta1` is not above 0, or if there is `decoupled_weight_decay`.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    weight_power: float = 2.0
    sequence_dtype: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.beta1 <= 1.0:
            raise ValueError(f"ScheduleFree: beta1 is {self.beta1}, expected above 0, at most 1.")
        if self.decoupled_weight_decay:
            raise ValueError(
                f"ScheduleFree: decoupled_weight_decay = {self.decoupled_weight_decay} would move "
                f"the variables away from the sequences they are made of. Use weight_decay."
            )

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        inner = optax.chain(
            # Adam without a mean of gradients, which would be kept for nothing.
            optax.scale_by_rms(
                decay=self.beta2, eps=self.epsilon, eps_in_sqrt=False, bias_correction=True
            ),
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(lr),
        )
        return with_partition_spec(
            optax.contrib.schedule_free(
                inner,
                lr,
                b1=self.beta1,
                weight_lr_power=self.weight_power,
                state_dtype=self.sequence_dtype,
            )
        )


def _is_state(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)


def schedule_free_eval_params(opt_state: Any, params: Any) -> Any:
    """The average of the weights, which models trained with `ScheduleFree` are evaluated at.

    Args:
      opt_state: anything that holds the optimizer's state, e.g. an entry of
        `TrainState.opt_states`; groups of stacked layers are found.
      params: the variables that this state belongs to.

    Raises:
      ValueError: if there is no such state.
    """
    states = [s for s in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(s)]
    if not states:
        raise ValueError(
            "schedule_free_eval_params: there is no state of a schedule-free optimizer. Pass the "
            "state of the optimizer that trained the variables."
        )

    def average(param: Any, fast: Any, beta1: Any) -> Any:
        if is_masked(param) or is_masked(fast):
            return param
        # Stacked layers have a beta1 each.
        beta1 = jnp.expand_dims(beta1, tuple(range(jnp.ndim(beta1), param.ndim)))
        return ((param - (1.0 - beta1) * fast) / beta1).astype(param.dtype)

    for state in states:
        params = jax.tree.map(
            lambda param, fast, beta1=state.b1: average(param, fast, beta1),
            params,
            state.z,
            is_leaf=is_masked,
        )
    return params

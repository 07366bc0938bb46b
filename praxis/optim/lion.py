"""Lion: the sign of a mean of gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from praxis.core.nested_map import NestedMap
from praxis.optim.base import BaseOptimizer
from praxis.optim.reductions import add_decayed, clip_rms, inf_to_nan
from praxis.optim.specs import NestedWeightHParams, like_variable
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    count_init_fn,
    count_init_partition_spec_fn,
)


def sharded_lion(
    learning_rate_fn: LearningRateFn,
    beta1: float,
    beta2: float,
    m_dtype: Any,
    update_capping: float,
    weight_decay: float,
) -> ShardedGradientTransformation:
    """Lion: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.

    u = sign(beta1 m + (1 - beta1) g), limited in RMS, plus decay, times -learning rate.

    Args:
      learning_rate_fn: count -> learning rate.
      beta1: weight of the mean in the update.
      beta2: decay of the mean.
      m_dtype: type in which the mean is stored.
      update_capping: limit of the RMS of u of each variable; 0 for none.
      weight_decay: times the variable, added to u; 0 for none.
    """
    scale_by_lion = optax.scale_by_lion(beta1, beta2, mu_dtype=m_dtype)

    def init(params: Any) -> NestedMap:
        m = jax.tree.map(lambda variable: jnp.zeros_like(variable, dtype=m_dtype), params)
        return NestedMap(count=count_init_fn(params).count, m=m)

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        inner: Any = optax.ScaleByLionState(count=state.count, mu=state.m)
        steps, inner = scale_by_lion.update(jax.tree.map(inf_to_nan, updates), inner)
        steps = jax.tree.map(lambda u: clip_rms(u, update_capping), steps)
        if weight_decay > 0.0:
            if params is None:
                raise ValueError(
                    "Lion with weight_decay needs the variables: "
                    "call update(updates, state, params)."
                )
            steps = jax.tree.map(lambda u, p: add_decayed(u, p, weight_decay), steps, params)
        scale = -learning_rate_fn(state.count)
        return jax.tree.map(lambda u: scale * u, steps), NestedMap(count=inner.count, m=inner.mu)

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        return NestedMap(
            count=count_init_partition_spec_fn(var_hparams).count,
            m=jax.tree.map(lambda variable: like_variable(variable, m_dtype), var_hparams),
        )

    return ShardedGradientTransformation(init, update, init_partition_spec)


class Lion(BaseOptimizer):
    """The sign of a mean of gradients as the update.

    Attributes:
      beta1: weight of the mean in the update.
      beta2: decay of the mean.
      clip_threshold: limit of the RMS of an update before the learning rate; 0 for none. The RMS
        of signs is at most 1, so that 1 has no effect.
      weight_decay: times the variable, added before the learning rate.
      m_dtype: type in which the mean is stored.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    clip_threshold: float = 1.0
    weight_decay: float = 0.0
    m_dtype: Any = jnp.bfloat16

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        return sharded_lion(
            learning_rate_fn=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            m_dtype=self.m_dtype,
            update_capping=self.clip_threshold,
            weight_decay=self.weight_decay,
        )

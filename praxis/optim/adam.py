"""Adam with moments that are kept bias-corrected."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from praxis.config.config import PaxConfig
from praxis.core.nested_map import NestedMap
from praxis.optim.base import BaseOptimizer
from praxis.optim.reductions import add_decayed, clip_rms, inf_to_nan
from praxis.optim.specs import NestedWeightHParams, like_variable
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    LearningRateFn,
    ShardedGradientTransformation,
    count_init_fn,
    count_init_partition_spec_fn,
)


def bias_corrected_decay(decay: float, count: Int[Array, ""]) -> Float[Array, ""]:
    """The weight of the old mean in an average that is free of its start from 0.

    d = b (1 - b^t) / (1 - b^(t + 1)), t from 0, makes x <- (1 - d) g + d x equal to Adam's moment
    divided by 1 - b^(t + 1).
    """
    step = count.astype(jnp.float32)
    return decay * (1.0 - decay**step) / (1.0 - decay ** (step + 1.0))


def moment_dtype(dtype: Any) -> Any:
    """At least float32, so that a moment keeps its type from the first step on."""
    return jnp.promote_types(dtype, jnp.float32)


def sharded_adam(
    learning_rate_fn: LearningRateFn,
    beta1: float,
    beta2: float,
    epsilon: float,
    epsilon_root: float,
    update_capping: float,
    weight_decay: float,
    maybe_inf_to_nan: bool = True,
) -> ShardedGradientTransformation:
    """Adam: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980.

    u = m / (sqrt(v + epsilon_root) + epsilon), limited in RMS, plus decay, times -learning rate.
    The state holds the corrected moments, so it is not that of `optax.scale_by_adam`, which gives
    the same updates up to rounding.

    Args:
      learning_rate_fn: count -> learning rate.
      beta1: decay of the mean of gradients.
      beta2: decay of the mean of squared gradients.
      epsilon: added to the root.
      epsilon_root: added under the root.
      update_capping: limit of the RMS of u of each variable; 0 for none.
      weight_decay: times the variable, added to u; 0 for none.
      maybe_inf_to_nan: turns infinite gradients into NaN.
    """

    def init(params: Any) -> NestedMap:
        def zeros(variable: jax.Array) -> jax.Array:
            return jnp.zeros_like(variable, dtype=moment_dtype(variable.dtype))

        return NestedMap(
            count=count_init_fn(params).count,
            m=jax.tree.map(zeros, params),
            v=jax.tree.map(zeros, params),
        )

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        count = state.count
        decay1 = bias_corrected_decay(beta1, count)
        decay2 = bias_corrected_decay(beta2, count)
        if maybe_inf_to_nan:
            updates = jax.tree.map(inf_to_nan, updates)
        m = jax.tree.map(lambda g, m: (1.0 - decay1) * g + decay1 * m, updates, state.m)
        v = jax.tree.map(lambda g, v: (1.0 - decay2) * jnp.square(g) + decay2 * v, updates, state.v)
        steps = jax.tree.map(
            lambda m, v: clip_rms(m / (jnp.sqrt(v + epsilon_root) + epsilon), update_capping), m, v
        )
        if weight_decay > 0.0:
            if params is None:
                raise ValueError(
                    "Adam with weight_decay needs the variables: "
                    "call update(updates, state, params)."
                )
            steps = jax.tree.map(lambda u, p: add_decayed(u, p, weight_decay), steps, params)
        scale = -learning_rate_fn(count)
        return jax.tree.map(lambda u: scale * u, steps), NestedMap(count=count + 1, m=m, v=v)

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        def moment(variable: Any) -> Any:
            return like_variable(variable, moment_dtype(variable.dtype or jnp.float32))

        return NestedMap(
            count=count_init_partition_spec_fn(var_hparams).count,
            m=jax.tree.map(moment, var_hparams),
            v=jax.tree.map(moment, var_hparams),
        )

    return ShardedGradientTransformation(init, update, init_partition_spec)


class Adam(BaseOptimizer):
    """Adam, by default with updates limited in RMS: set `clip_threshold` to 0 for the textbook one.

    AdamW is `Adam(decoupled_weight_decay=...)`.

    Attributes:
      beta1: decay of the mean of gradients.
      beta2: decay of the mean of squared gradients.
      clip_threshold: limit of the RMS of the update of each variable before the learning rate; 0
        for none.
      epsilon: added to the root of the second moment.
      epsilon_root: added under the root.
      weight_decay: deprecated, use `decoupled_weight_decay`.
      sharded_adam: False takes `optax.adam`, which has none of clipping, decay and the treatment
        of infinities.
      maybe_inf_to_nan: turns infinite gradients into NaN.

    Raises:
      ValueError: when built, if `sharded_adam` is off and a field is set that it cannot honour.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    clip_threshold: float = 1.0
    epsilon: float = 1e-6
    epsilon_root: float = 0.0
    weight_decay: float = 0.0
    sharded_adam: bool = True
    maybe_inf_to_nan: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay:
            warnings.warn(
                "Adam.weight_decay is deprecated; use decoupled_weight_decay.",
                DeprecationWarning,
                stacklevel=2,
            )
        # The default threshold passes: it stands in every config that turns sharded_adam off.
        if not self.sharded_adam and (self.weight_decay or self.clip_threshold not in (0.0, 1.0)):
            raise ValueError(
                f"Adam: sharded_adam = False cannot honour weight_decay = {self.weight_decay} and "
                f"clip_threshold = {self.clip_threshold}. Leave them at their defaults, or set "
                f"sharded_adam to True."
            )

    @classmethod
    def HParamsA(cls) -> PaxConfig["Adam"]:
        """A preset: betas .9 and .997, epsilon 1e-9."""
        return PaxConfig(cls, beta1=0.9, beta2=0.997, epsilon=1e-9)

    @classmethod
    def HParamsB(cls) -> PaxConfig["Adam"]:
        """A preset: betas .9 and .98, epsilon 1e-9."""
        return PaxConfig(cls, beta1=0.9, beta2=0.98, epsilon=1e-9)

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> GeneralGradientTransformation:
        if not self.sharded_adam:
            return optax.adam(lr, self.beta1, self.beta2, self.epsilon, self.epsilon_root)
        return sharded_adam(
            learning_rate_fn=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            epsilon_root=self.epsilon_root,
            update_capping=self.clip_threshold,
            weight_decay=self.weight_decay,
            maybe_inf_to_nan=self.maybe_inf_to_nan,
        )

"""Adam with moments that are kept bias-corrected."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from praxis.config.config import PaxConfig
from praxis.core.nested_map import NestedMap
from praxis.optim.base import BaseOptimizer
from praxis.optim.decay_rates import adafactor_decay_rate_adam
from praxis.optim.reductions import add_decayed, clip_rms, inf_to_nan
from praxis.optim.rounding import stochastic_round
from praxis.optim.specs import NestedWeightHParams, like_variable
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    LearningRateFn,
    ShardedGradientTransformation,
    count_init_fn,
    count_init_partition_spec_fn,
)

# Seed of the noise that rounds narrow moments. The rest of its key is the count of updates, so that
# a run that continues from a checkpoint rounds as if it had never stopped.
_ROUNDING_SEED = 0


def stored_moment_dtype(dtype: Any, moment_dtype: Any) -> Any:
    """The chosen type, else at least float32, so that a moment keeps its type from the start."""
    return jnp.promote_types(dtype, jnp.float32) if moment_dtype is None else moment_dtype


def _check_moment_dtype(moment_dtype: Any) -> None:
    if moment_dtype is not None and jnp.dtype(moment_dtype) not in (jnp.float32, jnp.bfloat16):
        raise ValueError(
            f"Adam: moment_dtype is {jnp.dtype(moment_dtype)}, expected None, float32 or bfloat16."
        )


def _stored(moments: Any, moment_dtype: Any, count: jax.Array) -> Any:
    """Moments in the type they are kept in; bfloat16 is rounded stochastically."""
    if moment_dtype is None or jnp.dtype(moment_dtype) != jnp.bfloat16:
        return moments
    leaves, structure = jax.tree.flatten(moments)
    key = jax.random.fold_in(jax.random.key(_ROUNDING_SEED), count)
    return jax.tree.unflatten(
        structure,
        [stochastic_round(jax.random.fold_in(key, i), leaf) for i, leaf in enumerate(leaves)],
    )


def sharded_adam(
    learning_rate_fn: LearningRateFn,
    beta1: float,
    beta2: float,
    epsilon: float,
    epsilon_root: float,
    update_capping: float,
    weight_decay: float,
    maybe_inf_to_nan: bool = True,
    moment_dtype: Any = None,
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
      moment_dtype: type in which the moments are kept: None for that of the variable, but at least
        float32; float32; or bfloat16, rounded stochastically. The update is computed before.

    Raises:
      ValueError: for another `moment_dtype`; in `update`, if there is decay but no params.
    """
    _check_moment_dtype(moment_dtype)

    def init(params: Any) -> NestedMap:
        def zeros(variable: jax.Array) -> jax.Array:
            return jnp.zeros_like(variable, dtype=stored_moment_dtype(variable.dtype, moment_dtype))

        return NestedMap(
            count=count_init_fn(params).count,
            m=jax.tree.map(zeros, params),
            v=jax.tree.map(zeros, params),
        )

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        count = state.count
        decay1 = adafactor_decay_rate_adam(beta1, count)
        decay2 = adafactor_decay_rate_adam(beta2, count)
        if maybe_inf_to_nan:
            updates = jax.tree.map(inf_to_nan, updates)
        if moment_dtype is not None:
            updates = jax.tree.map(lambda g: g.astype(jnp.float32), updates)
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
        m, v = _stored((m, v), moment_dtype, count)
        return jax.tree.map(lambda u: scale * u, steps), NestedMap(count=count + 1, m=m, v=v)

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        def moment(variable: Any) -> Any:
            dtype = stored_moment_dtype(variable.dtype or jnp.float32, moment_dtype)
            return like_variable(variable, dtype)

        return NestedMap(
            count=count_init_partition_spec_fn(var_hparams).count,
            m=jax.tree.map(moment, var_hparams),
            v=jax.tree.map(moment, var_hparams),
        )

    return ShardedGradientTransformation(init, update, init_partition_spec)


class Adam(BaseOptimizer):
    """Adam, by default with updates limited in RMS: set `clip_threshold` to 0 for the textbook one.

    `decoupled_weight_decay` makes it AdamW; `AdamW` is the textbook one.

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
      moment_dtype: type in which the moments are kept; None for that of the variable, but at least
        float32. bfloat16 halves their memory: they are rounded stochastically, so that small
        steps of the running means are not lost.

    Raises:
      ValueError: when built, if `moment_dtype` is none of these, or if `sharded_adam` is off and a
        field is set that it cannot honour.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    clip_threshold: float = 1.0
    epsilon: float = 1e-6
    epsilon_root: float = 0.0
    weight_decay: float = 0.0
    sharded_adam: bool = True
    maybe_inf_to_nan: bool = True
    moment_dtype: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay:
            warnings.warn(
                "Adam.weight_decay is deprecated; use decoupled_weight_decay.",
                DeprecationWarning,
                stacklevel=2,
            )
        _check_moment_dtype(self.moment_dtype)
        # The default threshold passes: it stands in every config that turns sharded_adam off.
        beyond = self.weight_decay or self.moment_dtype is not None
        if not self.sharded_adam and (beyond or self.clip_threshold not in (0.0, 1.0)):
            raise ValueError(
                f"{type(self).__name__}: sharded_adam = False cannot honour weight_decay = "
                f"{self.weight_decay}, clip_threshold = {self.clip_threshold} and moment_dtype = "
                f"{self.moment_dtype}. Leave them at their defaults, or set sharded_adam to True."
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
            moment_dtype=self.moment_dtype,
        )


class AdamW(Adam):
    """`optax.adamw`, number for number: no limit on the RMS of updates, decoupled decay.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.

    Attributes:
      clip_threshold: limit of the RMS of the update of each variable; 0 for none.
      epsilon: added to the root of the second moment.
      decoupled_weight_decay: w subtracts learning rate * w * v from every update.
    """

    clip_threshold: float = 0.0
    epsilon: float = 1e-8
    decoupled_weight_decay: float | None = 1e-4

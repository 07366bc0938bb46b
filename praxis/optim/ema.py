"""Moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp

from praxis.core.nested_map import NestedMap
from praxis.optim.specs import NestedWeightHParams, like_variable
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    count_init_fn,
    count_init_partition_spec_fn,
    transformation,
)


def ema_decay_at(decay: float, count: jax.Array) -> jax.Array:
    """min(decay, (1 + count) / (10 + count)): short averages at the start of training."""
    count = jnp.asarray(count, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1.0 + count) / (10.0 + count))


def apply_ema_weights(
    decay: float, use_optax_gradient_transformations: bool = False
) -> GeneralGradientTransformation:
    """Keeps ema <- ema - (1 - d) (ema - params) in its state; updates pass through.

    The params are those before the step, so the average lags one step behind. Integer and boolean
    variables are copied. `optax.ema` is another thing: it averages updates.

    Args:
      decay: upper limit of d, see `ema_decay_at`.
      use_optax_gradient_transformations: returns a plain optax transformation.

    Raises:
      ValueError: in `update`, if there are no params.
    """

    def init(params: Any) -> NestedMap:
        return NestedMap(count=count_init_fn(params).count, ema=jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        if params is None:
            raise ValueError(
                "A moving average of weights needs the variables: "
                "call update(updates, state, params)."
            )
        step_size = 1.0 - ema_decay_at(decay, state.count)

        def average(ema: jax.Array, variable: jax.Array) -> jax.Array:
            if not jnp.issubdtype(variable.dtype, jnp.inexact):
                return variable
            return (ema - step_size * (ema - variable)).astype(ema.dtype)

        new_ema = jax.tree.map(average, state.ema, params)
        return updates, NestedMap(count=state.count + 1, ema=new_ema)

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        count = count_init_partition_spec_fn(var_hparams).count
        return NestedMap(count=count, ema=jax.tree.map(like_variable, var_hparams))

    return transformation(
        init, update, init_partition_spec, use_optax=use_optax_gradient_transformations
    )

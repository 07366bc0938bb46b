"""Elastic weight consolidation: a pull back to the weights training started from."""

from typing import Any

import jax
import jax.numpy as jnp

from praxis.core.nested_map import NestedMap
from praxis.optim.specs import NestedWeightHParams, like_variable, replicated
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    LearningRateFn,
    count_init_fn,
    count_init_partition_spec_fn,
    transformation,
)
from praxis.optim.trees import map_unmasked


def apply_ewc_regularization(
    learning_rate_fn: LearningRateFn,
    ewc_regularizer_weight: float = 0.0,
    ewc_weight_per_var: Any = None,
    use_optax_gradient_transformations: bool = False,
) -> GeneralGradientTransformation:
    """Subtracts lr(count) * w * (v - v0) from the updates of an optimizer.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2016,
    arXiv:1612.00796, with one importance w for a variable instead of one for each weight. v0 is
    the variable at the first update, so that a run that starts from a checkpoint is pulled to it.
    w is half of `ewc_regularizer_weight`, times the variable's entry of `ewc_weight_per_var`.

    Args:
      learning_rate_fn: count -> learning rate.
      ewc_regularizer_weight: 0 for off.
      ewc_weight_per_var: numbers in a tree like the variables; None or False for 1.
      use_optax_gradient_transformations: returns a plain optax transformation.

    Raises:
      ValueError: in `update`, if it is on and there are no params.
    """
    if not ewc_regularizer_weight > 0.0:
        return transformation(
            count_init_fn,
            lambda updates, state, params=None: (updates, NestedMap(count=state.count + 1)),
            count_init_partition_spec_fn,
            use_optax=use_optax_gradient_transformations,
        )

    def init(params: Any) -> NestedMap:
        return NestedMap(
            count=count_init_fn(params).count,
            pretrain_vars=jax.tree.map(jnp.copy, params),
            var_weights=jax.tree.map(
                lambda v: jnp.asarray(ewc_regularizer_weight / 2.0, v.dtype), params
            ),
        )

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        if params is None:
            raise ValueError(
                "Elastic weight consolidation needs the variables: "
                "call update(updates, state, params)."
            )
        first, rate = state.count == 0, learning_rate_fn(state.count)
        anchors = jax.tree.map(lambda v, v0: jnp.where(first, v, v0), params, state.pretrain_vars)
        weights = state.var_weights
        if ewc_weight_per_var:
            weights = map_unmasked(
                lambda w, scale: jnp.where(first, w * scale, w).astype(w.dtype),
                weights,
                ewc_weight_per_var,
            )
        updates = jax.tree.map(
            lambda u, v, v0, w: u - (rate * w * (v - v0)).astype(u.dtype),
            updates,
            params,
            anchors,
            weights,
        )
        return updates, NestedMap(count=state.count + 1, pretrain_vars=anchors, var_weights=weights)

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        return NestedMap(
            count=count_init_partition_spec_fn(var_hparams).count,
            pretrain_vars=jax.tree.map(like_variable, var_hparams),
            var_weights=jax.tree.map(
                lambda v: replicated(jax.ShapeDtypeStruct((), v.dtype or jnp.float32)), var_hparams
            ),
        )

    return transformation(
        init, update, init_partition_spec, use_optax=use_optax_gradient_transformations
    )

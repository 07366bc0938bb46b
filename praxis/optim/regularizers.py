"""Penalties on the size of the weights, as transformations around an optimizer.

Masks are trees of Python booleans or numbers like the variables: false takes a variable out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from praxis.core.nested_map import NestedMap
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    LearningRateFn,
    count_init_fn,
    count_init_partition_spec_fn,
    transformation,
)
from praxis.optim.trees import map_unmasked


def _add_penalty(
    penalty: Callable[[jax.Array], jax.Array], updates: Any, params: Any, mask: Any
) -> Any:
    """Adds mask * penalty(variable) to every update; nothing is computed where the mask is 0."""

    def add(update: jax.Array, variable: jax.Array, kept: Any = True) -> jax.Array:
        if not kept:
            return update
        added = penalty(variable) if kept is True or kept == 1 else penalty(variable) * kept
        return update + added.astype(jnp.result_type(update))

    return map_unmasked(add, updates, params, *(() if mask is None else (mask,)))


def _require_params(params: Any, what: str) -> None:
    if params is None:
        raise ValueError(f"{what} needs the variables: call update(updates, state, params).")


def apply_lp_regularizer(
    var_lp_mask: Any,
    regularizer_weight: float | None = 0.0,
    p: float = 2.0,
    skip_lp_1d_vectors: bool = False,
    use_optax_gradient_transformations: bool = False,
) -> GeneralGradientTransformation:
    """Adds the gradient of w |v|_1 (p = 1) or of (w / 2) |v|_2^2 (p = 2) to the gradients.

    Args:
      var_lp_mask: which variables take part; None for all.
      regularizer_weight: w; 0 or None for off.
      p: 1 or 2.
      skip_lp_1d_vectors: leaves out variables of rank 0 and 1.
      use_optax_gradient_transformations: returns a plain optax transformation.

    Raises:
      ValueError: if `p` is neither 1 nor 2; in `update`, if it is on and there are no params.
    """
    if p not in (1.0, 2.0):
        raise ValueError(f"apply_lp_regularizer: p is {p}, expected 1.0 or 2.0.")

    weight = regularizer_weight or 0.0

    def penalty(variable: jax.Array) -> jax.Array:
        return weight * (jnp.sign(variable) if p == 1.0 else variable)

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        if weight:
            _require_params(params, f"L{p:.0f} regularization")
            mask = var_lp_mask
            if skip_lp_1d_vectors:
                high_rank = map_unmasked(lambda variable: variable.ndim > 1, params)
                mask = high_rank if mask is None else map_unmasked(_and, high_rank, mask)
            updates = _add_penalty(penalty, updates, params, mask)
        return updates, NestedMap(count=state.count + 1)

    return transformation(
        count_init_fn,
        update,
        count_init_partition_spec_fn,
        use_optax=use_optax_gradient_transformations,
    )


def _and(keep: bool, mask: Any) -> Any:
    return mask if keep else False


def apply_decoupled_weight_decay(
    learning_rate_fn: LearningRateFn,
    var_wd_mask: Any,
    regularizer_weight: float | None = 0.0,
    use_optax_gradient_transformations: bool = False,
) -> GeneralGradientTransformation:
    """Subtracts lr(count) * w * v from the updates of an optimizer.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101.

    Args:
      learning_rate_fn: count -> learning rate.
      var_wd_mask: which variables take part; None for all.
      regularizer_weight: w; 0 or None for off.
      use_optax_gradient_transformations: returns a plain optax transformation.

    Raises:
      ValueError: in `update`, if it is on and there are no params.
    """

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        if regularizer_weight:
            _require_params(params, "decoupled weight decay")
            rate = -learning_rate_fn(state.count) * regularizer_weight
            updates = _add_penalty(lambda v: rate * v, updates, params, var_wd_mask)
        return updates, NestedMap(count=state.count + 1)

    return transformation(
        count_init_fn,
        update,
        count_init_partition_spec_fn,
        use_optax=use_optax_gradient_transformations,
    )

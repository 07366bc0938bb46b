"""Gradient accumulation: a batch in several passes, with the memory of one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paxml.learner.forward import combine, split_rows, weighted_mean
from paxml.learner.gradient import GradAuxInfo, LossFn, ValueAndGrad


def accumulated_value_and_grad(
    loss_fn: LossFn,
    mdl_vars_grad: Any,
    mdl_vars_nograd: Any,
    inputs: Any,
    prng_key: jax.Array,
    *,
    num_microbatches: int,
) -> ValueAndGrad:
    """The gradient of a batch from those of its microbatches.

    g = sum_i w_i g_i / sum_i w_i, with w_i the weight of the loss of microbatch i. This is the
    gradient of the whole batch when the loss is a weighted mean over examples: a microbatch with
    fewer examples or tokens that count, counts less. It differs where the model looks at other
    examples of the batch, as batch normalization does, and in its random numbers.

    Args:
      loss_fn: see `LossFn`.
      mdl_vars_grad: variables to differentiate by.
      mdl_vars_nograd: the other variables, the same for all microbatches. Their new values are
        the means over the microbatches.
      inputs: the batch, arrays [B, ...].
      prng_key: split into a key for each microbatch.
      num_microbatches: a divisor of B.

    Returns:
      ((loss, aux), gradients), as `jax.value_and_grad` on the whole batch. Gradients are summed in
      float32 or wider.

    Raises:
      ValueError: if B is not a multiple of the number of microbatches.
    """
    microbatches = split_rows(inputs, num_microbatches, f"num_microbatches = {num_microbatches}")
    keys = jax.random.split(prng_key, num_microbatches)
    # As for a plain gradient, an integer variable has an empty one.
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True, allow_int=True)

    def add(sums: Any, microbatch: Any) -> tuple[Any, Any]:
        batch, key = microbatch
        (loss, aux), grads = value_and_grad(mdl_vars_grad, (mdl_vars_nograd, batch), key)
        weight = jnp.asarray(aux.loss_weight, jnp.float32)
        # The mean of nothing may be NaN; it must not spread.
        sums = jax.tree.map(
            lambda total, g: (
                total + jnp.where(weight != 0, weight * g, 0.0)
                if g.dtype != jax.dtypes.float0
                else total
            ),
            sums,
            grads,
        )
        return sums, (loss, aux.aux_info, weight)

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), mdl_vars_grad
    )
    sums, (losses, aux_infos, weights) = jax.lax.scan(add, zeros, (microbatches, keys))
    total = jnp.sum(weights)
    divisor = jnp.where(total == 0, jnp.ones_like(total), total)
    grads = jax.tree.map(
        lambda s, x: (
            (s / divisor).astype(x.dtype)
            if jnp.issubdtype(x.dtype, jnp.inexact)
            else np.zeros(x.shape, jax.dtypes.float0)
        ),
        sums,
        mdl_vars_grad,
    )
    loss = weighted_mean(losses, weights)
    return (loss, GradAuxInfo(combine(aux_infos, weights), loss_weight=total)), grads

"""DP-SGD without the gradients of all examples in memory."""

from typing import Any

import jax
import jax.numpy as jnp

from paxml.learner.dp.per_example import DpSgdStochasticGradient, _Unit
from paxml.learner.gradient import LossFn, ValueAndGrad
from paxml.learner.scaling import global_norm, scale_to_norm


class GhostClippingDpSgdStochasticGradient(DpSgdStochasticGradient):
    """The same gradient as `DpSgdStochasticGradient`, from two passes.

    The first finds the norm of the gradient of each example, one example at a time; the second
    is the gradient of sum_i min(1, l2_norm_clip / |g_i|) loss_i of the whole batch. So no more than
    one gradient is in memory, at the price of a slow first pass. Li et al., "Large Language Models
    Can Be Strong Differentially Private Learners", 2021, arXiv:2110.05679, find the norms of linear
    layers in one go; here any model works as it is.

    Raises:
      ValueError: when built, with an `inner_batch_size`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_batch_size is not None:
            raise ValueError(
                f"{type(self).__name__}: inner_batch_size is {self.inner_batch_size}, expected "
                "None: this gradient never holds more than one example's."
            )

    def grad_fn(
        self,
        loss_fn: LossFn,
        mdl_vars_grad: Any,
        mdl_vars_nograd_and_inputs: tuple[Any, Any],
        prng_key: jax.Array,
    ) -> ValueAndGrad:
        mdl_vars_nograd, inputs = mdl_vars_nograd_and_inputs
        units = self._make_units(inputs)
        noise_key, key = jax.random.split(prng_key)
        num_units = jax.tree.leaves(units)[0].shape[0]
        keys = jax.random.split(key, num_units)

        def norm_and_bound(unit_and_key: Any) -> tuple[jax.Array, jax.Array]:
            unit, unit_key = unit_and_key
            grads, aux = jax.grad(loss_fn, has_aux=True)(
                mdl_vars_grad, (mdl_vars_nograd, unit), unit_key
            )
            weight = jnp.asarray(aux.loss_weight, jnp.float32)
            return global_norm(grads), self.l2_norm_clip * (
                weight if self.use_loss_weight_scaling else jnp.ones_like(weight)
            )

        norms, bounds = jax.lax.map(norm_and_bound, (units, keys))
        scales = jax.vmap(scale_to_norm)(norms, bounds)

        def clipped_loss(mdl_vars: Any) -> tuple[jax.Array, Any]:
            losses, aux = jax.vmap(
                lambda unit, unit_key: loss_fn(mdl_vars, (mdl_vars_nograd, unit), unit_key),
                spmd_axis_name=self.spmd_axis_name,
            )(units, keys)
            return jnp.mean(scales * losses), (losses, aux)

        grads, (losses, aux) = jax.grad(clipped_loss, has_aux=True)(mdl_vars_grad)
        weights = jnp.broadcast_to(jnp.asarray(aux.loss_weight, jnp.float32), (num_units,))
        info = {"frac_clipped": (norms > bounds).astype(jnp.float32)}
        return self._finish(grads, _Unit(losses, aux.aux_info, weights, info), num_units, noise_key)

"""Gradients summed over several calls before the optimizer sees them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from praxis.config.config import PaxConfig
from praxis.config.instantiate import instantiate
from praxis.core.nested_map import NestedMap
from praxis.optim.base import BaseOptimizer
from praxis.optim.specs import NestedWeightHParams, like_variable
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    LearningRateFn,
    ShardedGradientTransformation,
    count_init_fn,
    count_init_partition_spec_fn,
    partition_spec_of,
)


def sharded_static_accumulation(
    num_sub_batches: int,
    base_tx: GeneralGradientTransformation,
    accumulation_use_cond_op: bool = False,
) -> ShardedGradientTransformation:
    """Calls `base_tx` once in `num_sub_batches` calls, with the mean of their gradients.

    In between updates are zeros and the state of `base_tx` stays. `optax.MultiSteps` does the same
    without a description of its state.

    Args:
      num_sub_batches: at least 1.
      base_tx: what to call.
      accumulation_use_cond_op: decides with `lax.cond`. The default is a `lax.while_loop` of 0 or 1
        turns, which under `jax.vmap` still does nothing in between, where a `cond` would compute
        both branches.

    Raises:
      ValueError: if `num_sub_batches` is below 1.
    """
    if num_sub_batches < 1:
        raise ValueError(
            f"sharded_static_accumulation: num_sub_batches is {num_sub_batches}, expected at "
            f"least 1."
        )

    def init(params: Any) -> NestedMap:
        zeros = jax.tree.map(lambda v: jnp.zeros(jnp.shape(v), jnp.float32), params)
        return NestedMap(
            base_state=base_tx.init(params),
            accumulated_update=zeros,
            count=count_init_fn(params).count,
        )

    def update(updates: Any, state: NestedMap, params: Any = None) -> tuple[Any, NestedMap]:
        total = jax.tree.map(
            lambda acc, grad: acc + jnp.asarray(grad, jnp.float32),
            state.accumulated_update,
            updates,
        )
        is_last = state.count + 1 >= num_sub_batches

        def emit(base_state: Any) -> tuple[Any, Any]:
            mean = jax.tree.map(lambda acc: acc / num_sub_batches, total)
            new_updates, new_state = base_tx.update(mean, base_state, params)
            # A loop and a branch must give back the types that they have got.
            return new_updates, jax.tree.map(
                lambda new, old: jnp.asarray(new, old.dtype), new_state, base_state
            )

        shapes, _ = jax.eval_shape(emit, state.base_state)
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        if accumulation_use_cond_op:
            new_updates, base_state = lax.cond(
                is_last, emit, lambda base_state: (zeros, base_state), state.base_state
            )
        else:
            _, (new_updates, base_state) = lax.while_loop(
                lambda carry: carry[0],
                lambda carry: (jnp.zeros_like(carry[0]), emit(carry[1][1])),
                (is_last, (zeros, state.base_state)),
            )
        return new_updates, NestedMap(
            base_state=base_state,
            accumulated_update=jax.tree.map(
                lambda acc: jnp.where(is_last, jnp.zeros_like(acc), acc), total
            ),
            count=jnp.where(is_last, 0, state.count + 1),
        )

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        return NestedMap(
            base_state=partition_spec_of(base_tx, var_hparams),
            accumulated_update=jax.tree.map(
                lambda var: like_variable(var, jnp.float32), var_hparams
            ),
            count=count_init_partition_spec_fn(var_hparams).count,
        )

    return ShardedGradientTransformation(init, update, init_partition_spec)


class ShardedStaticAccumulator(BaseOptimizer):
    """An optimizer that sees the mean of the gradients of several steps.

    The schedule counts updates of the inner optimizer. Regularizers, decay, consolidation and the
    moving average of the inner optimizer are not used; set them here. Those that are set here act
    in every step, also in those without an update: decoupled decay shrinks weights
    `num_sub_batches` times per update.

    Attributes:
      optimizer_tpl: Config of the inner optimizer. Required. Its schedule is the one in use if it
        has one, else this one's; its learning rate is in use where this one's is 0.
      num_sub_batches: steps per update of the inner optimizer, at least 1.
      accumulation_use_cond_op: see `sharded_static_accumulation`.
      base_optimizer: the inner optimizer, made from `optimizer_tpl`.

    Raises:
      ValueError: when built, if there is no `optimizer_tpl`, no schedule, or `num_sub_batches` is
        below 1.
    """

    optimizer_tpl: PaxConfig[BaseOptimizer] | None = None
    num_sub_batches: int = 1
    accumulation_use_cond_op: bool = False
    base_optimizer: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.optimizer_tpl is None:
            raise ValueError(
                "ShardedStaticAccumulator: optimizer_tpl is None. Set it in the config, e.g. "
                "config.optimizer_tpl = pax_fiddle.Config(optimizers.Adam)."
            )
        if self.num_sub_batches < 1:
            raise ValueError(
                f"ShardedStaticAccumulator: num_sub_batches is {self.num_sub_batches}, expected at "
                f"least 1."
            )
        inner = self.optimizer_tpl.clone()
        inner.lr_schedule = self.lr_schedule = inner.lr_schedule or self.lr_schedule
        inner.learning_rate = self.learning_rate = self.learning_rate or inner.learning_rate
        super().__post_init__()
        self.base_optimizer = instantiate(inner)

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        return sharded_static_accumulation(
            self.num_sub_batches,
            self.base_optimizer._get_raw_grad_transformation(lr),
            self.accumulation_use_cond_op,
        )

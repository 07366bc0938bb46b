"""Gradient transformations that know how their state is laid out over a mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from praxis.core.nested_map import NestedMap
from praxis.optim.specs import NestedWeightHParams, derive_partition_spec, replicated
from praxis.optim.trees import masked_like, with_masked_nodes

LearningRateFn = Callable[[Any], Any]  # count of updates -> learning rate, a scalar
# Descriptions of variables -> descriptions of the state that `init` makes for them.
TransformInitPartitionSpecFn = Callable[[NestedWeightHParams], Any]


@dataclasses.dataclass(frozen=True)
class ShardedGradientTransformation:
    """An optax transformation plus the description of its state.

    Attributes:
      init: params -> state, as in optax.
      update: (updates, state, params) -> (updates, state), as in optax.
      init_partition_spec: tree of `WeightHParams` of the variables -> tree of `WeightHParams` with
        the structure of the state.
    """

    init: Callable[..., Any]
    update: Callable[..., tuple[Any, Any]]
    init_partition_spec: TransformInitPartitionSpecFn


GeneralGradientTransformation = optax.GradientTransformation | ShardedGradientTransformation


def transformation(
    init: Callable[..., Any],
    update: Callable[..., tuple[Any, Any]],
    init_partition_spec: TransformInitPartitionSpecFn,
    *,
    use_optax: bool,
) -> GeneralGradientTransformation:
    """The parts as an optax transformation, which drops the description, or as a sharded one."""
    if use_optax:
        return optax.GradientTransformationExtraArgs(init, update)
    return ShardedGradientTransformation(init, update, init_partition_spec)


def with_partition_spec(tx: optax.GradientTransformation) -> ShardedGradientTransformation:
    """An optax transformation with the description derived from its `init`."""
    return ShardedGradientTransformation(
        init=tx.init,
        update=tx.update,
        init_partition_spec=lambda var_hparams: derive_partition_spec(tx, var_hparams),
    )


def count_init_fn(_: Any) -> NestedMap:
    """State of a transformation that only counts its calls."""
    return NestedMap(count=jnp.zeros([], jnp.int32))


def count_init_partition_spec_fn(var_hparams: NestedWeightHParams) -> NestedMap:
    """Description of the state of `count_init_fn`: replicated."""
    del var_hparams
    return NestedMap(count=replicated(jax.ShapeDtypeStruct((), jnp.int32)))


def sharded_chain(*args: GeneralGradientTransformation) -> ShardedGradientTransformation:
    """Applies transformations one after another; the state is the tuple of their states.

    The description has the structure of the state, member by member; that of a plain optax member
    is derived from its `init`.
    """

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(member.init(params) for member in args)

    def update(
        updates: Any, state: tuple[Any, ...], params: Any = None, **extra_args: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        if len(state) != len(args):
            raise ValueError(
                f"sharded_chain: the state has {len(state)} entries for {len(args)} "
                f"transformations. Make it with the `init` of the same chain."
            )
        new_state = []
        for member, member_state in zip(args, state, strict=True):
            takes_extra = isinstance(member, optax.GradientTransformationExtraArgs)
            extra = extra_args if takes_extra else {}
            updates, member_state = member.update(updates, member_state, params, **extra)
            new_state.append(with_masked_nodes(member_state))
        return updates, tuple(new_state)

    def init_partition_spec(var_hparams: NestedWeightHParams) -> tuple[Any, ...]:
        return tuple(partition_spec_of(member, var_hparams) for member in args)

    return ShardedGradientTransformation(init, update, init_partition_spec)


def partition_spec_of(tx: GeneralGradientTransformation, var_hparams: NestedWeightHParams) -> Any:
    """The description of the state of any transformation, derived where it brings none."""
    if isinstance(tx, ShardedGradientTransformation):
        return tx.init_partition_spec(var_hparams)
    return derive_partition_spec(tx, var_hparams)


def sharded_masked(
    inner: GeneralGradientTransformation,
    mask: Any,
    use_custom_masked: bool = False,
) -> GeneralGradientTransformation:
    """`optax.masked`: only variables whose mask is true are transformed and have a state.

    Args:
      inner: what to apply.
      mask: tree of booleans like the variables or a prefix of it, or a function that makes one.
      use_custom_masked: has no effect; there is one kind of mask.

    Returns:
      A transformation of the kind of `inner`. The description has the structure of the state.
    """
    del use_custom_masked
    masked = optax.masked(inner, mask)  # pyright: ignore[reportArgumentType]  # only init, update
    if not isinstance(inner, ShardedGradientTransformation):
        return masked

    def init_partition_spec(var_hparams: NestedWeightHParams) -> optax.MaskedState:
        chosen = mask(var_hparams) if callable(mask) else mask
        return optax.MaskedState(inner.init_partition_spec(masked_like(chosen, var_hparams)))

    return ShardedGradientTransformation(masked.init, masked.update, init_partition_spec)

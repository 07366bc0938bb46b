"""Optimizers over stacked layers: every layer of a stack is updated as if it stood alone."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from praxis.core.context import JaxContext
from praxis.core.nested_map import NestedMap
from praxis.core.summaries import (
    add_global_summary,
    get_summary_type_from_key,
    trim_summary_type_from_key,
)
from praxis.core.weights import WeightHParams
from praxis.optim import specs
from praxis.optim.prefix import NO_PREFIX_KEY, PrefixGroups, without_prefix
from praxis.optim.specs import NestedWeightHParams
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    ShardedGradientTransformation,
)


class VectorizedGradientTransformation(optax.GradientTransformationExtraArgs):
    """A vectorized optax transformation that remembers what it vectorizes.

    Attributes:
      original_grad_tx: the transformation of one layer.
    """

    original_grad_tx: optax.GradientTransformation


def has_no_prefix(dct: dict[str, Any]) -> bool:
    """Whether "no_prefix" is the only group."""
    return set(dct) == {NO_PREFIX_KEY}


def _vmap_over_prefix(fn: Callable[..., Any], spmd_axis_names: list[Any]) -> Callable[..., Any]:
    for axis_name in reversed(spmd_axis_names):
        fn = jax.vmap(fn, spmd_axis_name=axis_name)
    return fn


def _update_group(
    tx: GeneralGradientTransformation,
    groups: PrefixGroups,
    key: str,
    inputs: tuple[Any, Any, Any],
    extra_args: dict[str, Any],
) -> tuple[Any, Any]:
    """`tx.update` over the stacking dims of a group; its summaries are stacked as well."""
    if not groups.prefix(key):
        return tx.update(*inputs, **extra_args)

    def one_layer(updates: Any, state: Any, params: Any) -> tuple[Any, Any, dict[str, Any]]:
        with JaxContext.new_context() as context:
            updates, state = tx.update(updates, state, params, **extra_args)
        return updates, state, dict(context.summary_dict)

    all_layers = _vmap_over_prefix(one_layer, groups.spmd_axis_names(key))
    updates, state, summaries = all_layers(*inputs)
    for name, value in summaries.items() if JaxContext.has_context() else ():
        stacked = f"{trim_summary_type_from_key(name)}.{list(groups.prefix(key))}"
        add_global_summary(stacked, value, get_summary_type_from_key(name))
    return updates, state


def get_transformations_with_vectorized_repeat_prefix(
    tx: GeneralGradientTransformation,
    var_hparams: NestedWeightHParams,
    repeat_prefix_sep: str = "#",
    force_prefix_structure: bool = False,
) -> GeneralGradientTransformation:
    """Applies a transformation to every layer of a stack on its own.

    A variable of stacked layers has its `repeat_prefix` dims in front. Variables are grouped by
    these dims and their sharding; each group goes through `tx` under one `jax.vmap` a dim, so that
    what `tx` reduces over a tensor is reduced over one layer's.

    Args:
      tx: the transformation of one layer.
      var_hparams: descriptions of the variables.
      repeat_prefix_sep: separates the parts of the keys of groups in the state, hence in
        checkpoint paths.
      force_prefix_structure: wraps the state in groups even when nothing is stacked.

    Returns:
      `tx` itself when nothing is stacked; else a transformation of its kind with the state
      NestedMap {key of group: state of `tx`}. Every leaf of a state, counts too, has the dims of
      its group in front.
    """
    groups = PrefixGroups(var_hparams, repeat_prefix_sep)
    if groups.keys == [NO_PREFIX_KEY] and not force_prefix_structure:
        return tx

    def init(params: Any) -> NestedMap:
        return NestedMap(
            {
                key: _vmap_over_prefix(tx.init, groups.spmd_axis_names(key))(tree)
                for key, tree in groups.split_tree(params).items()
            }
        )

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, NestedMap]:
        new_updates, new_state = {}, NestedMap()
        for key in groups.keys:
            own_params = None if params is None else groups.take(params, key)
            inputs = (groups.take(updates, key), state[key], own_params)
            new_updates[key], new_state[key] = _update_group(tx, groups, key, inputs, extra_args)
        return groups.merge(new_updates), new_state

    if not isinstance(tx, ShardedGradientTransformation):
        vectorized = VectorizedGradientTransformation(init, update)
        vectorized.original_grad_tx = tx
        return vectorized

    def init_partition_spec(var_hparams: NestedWeightHParams) -> NestedMap:
        spec = NestedMap()
        for key in groups.keys:
            one_layer = jax.tree.map(without_prefix, groups.take(var_hparams, key))
            spec[key] = jax.tree.map(
                lambda leaf, key=key: _with_prefix(leaf, groups, key),
                tx.init_partition_spec(one_layer),
            )
        return spec

    return ShardedGradientTransformation(init, update, init_partition_spec)


def _with_prefix(leaf: WeightHParams, groups: PrefixGroups, key: str) -> WeightHParams:
    leaf.repeat_prefix = list(groups.prefix(key))
    leaf.repeat_prefix_split_dims_mapping = groups.split(key)
    return leaf


def partition_params(
    grad_tx: Any,
    var_weight_hparams: NestedWeightHParams,
    opt_states: Any,
    repeat_prefix_sep: str = "#",
) -> Any:
    """Describes the state of a plain optax transformation, vectorized or not.

    Args:
      grad_tx: the transformation.
      var_weight_hparams: descriptions of the variables.
      opt_states: its state, or shapes in that structure.
      repeat_prefix_sep: as it was when `grad_tx` was vectorized.

    Returns:
      A tree of `WeightHParams` of the structure of the state.
    """
    if not isinstance(grad_tx, VectorizedGradientTransformation):
        return specs.partition_params(grad_tx, var_weight_hparams, opt_states)
    groups = PrefixGroups(var_weight_hparams, repeat_prefix_sep)
    return NestedMap(
        {
            key: specs.partition_params(
                grad_tx.original_grad_tx, groups.take(var_weight_hparams, key), opt_states[key]
            )
            for key in groups.keys
        }
    )

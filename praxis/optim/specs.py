"""Descriptions (shape, dtype, sharding) of optimizer states."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from praxis.core.weights import WeightHParams
from praxis.optim.trees import is_masked

NestedWeightHParams = Any  # a tree whose leaves are WeightHParams


def like_variable(var_hparams: WeightHParams, dtype: Any = None) -> WeightHParams:
    """The description of a state leaf of a variable's shape and sharding."""
    return dataclasses.replace(
        var_hparams, init=None, dtype=var_hparams.dtype if dtype is None else dtype
    )


def replicated(leaf: Any) -> WeightHParams:
    """The description of an array that every device holds whole."""
    return WeightHParams(
        shape=list(leaf.shape), dtype=leaf.dtype, tensor_split_dims_mapping=[-1] * len(leaf.shape)
    )


def partition_params(grad_tx: Any, var_weight_hparams: NestedWeightHParams, opt_states: Any) -> Any:
    """Describes the state of a plain optax transformation.

    Optimizers keep their moments in trees like that of the variables, so the path of a moment ends
    in the path of its variable.

    Args:
      grad_tx: the transformation. Its state says enough, so that it is not looked at.
      var_weight_hparams: descriptions of the variables.
      opt_states: its state, or anything of that structure whose leaves have a shape and a dtype.

    Returns:
      A tree of the structure of the state. A leaf with the path and the shape of a variable is laid
      out like the variable; any other one is replicated. Masked nodes stay.
    """
    del grad_tx
    variables, _ = jax.tree_util.tree_flatten_with_path(var_weight_hparams)
    by_path = dict(variables)
    lengths = sorted({len(path) for path in by_path}, reverse=True)

    def describe(path: tuple[Any, ...], leaf: Any) -> Any:
        if is_masked(leaf):
            return leaf
        ends = (path[len(path) - length :] for length in lengths if length <= len(path))
        var_hparams = next((by_path[end] for end in ends if end in by_path), None)
        if var_hparams is None or tuple(leaf.shape) != tuple(var_hparams.full_shape):
            return replicated(leaf)
        return like_variable(var_hparams, leaf.dtype)

    return jax.tree_util.tree_map_with_path(describe, opt_states, is_leaf=is_masked)


def derive_partition_spec(grad_tx: Any, var_hparams: NestedWeightHParams) -> Any:
    """Describes the state that an optax transformation makes for the given variables."""
    variables = jax.tree.map(
        lambda var: jax.ShapeDtypeStruct(tuple(var.full_shape), var.dtype or jnp.float32),
        var_hparams,
    )
    return partition_params(grad_tx, var_hparams, jax.eval_shape(grad_tx.init, variables))

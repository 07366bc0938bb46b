"""Metadata for the variables of Flax modules, read from their logical axis names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.core import meta as flax_meta
from flax.linen import partitioning, spmd
from flax.traverse_util import flatten_dict, unflatten_dict

from praxis.core.boxed import BoxedParam
from praxis.core.names import PARAMS
from praxis.core.weights import WeightHParams, WeightHParamsCollection
from praxis.utils.types import LogicalAxisRules

AXES_SUFFIX = "_axes"

# Variables outside of `params` are batch statistics unless the caller says otherwise.
FOREIGN_COLLECTIONS = (
    WeightHParamsCollection.NON_TRAINABLE,
    WeightHParamsCollection.REQUIRES_MEAN_SYNC,
)


def convert_to_boxed_params(
    var_tree: Mapping[str, Any],
    logical_axes_rules: LogicalAxisRules | None = None,
    mesh_shape: Sequence[int] | None = None,
    var_collection_map: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Puts each array of a tree of Flax variables into a box with its WeightHParams.

    The sharding comes from the logical axis names that a module gives in a collection such as
    `params_axes` (`flax.linen.partitioning`) or in a box of Flax's own (`nn.with_partitioning`,
    `nn.with_logical_partitioning`). Dims without a name are replicated.

    Args:
      var_tree: Variables by collection.
      logical_axes_rules: Pairs of a logical name and a mesh axis or None. Without them no names
        are read.
      mesh_shape: Shape of the mesh.
      var_collection_map: WeightHParams collections of the variables of a Flax collection. By
        default none for `params`, for all others those of batch statistics.

    Returns:
      The variables by collection, without the collections that end in `_axes`. What is in a box
      with WeightHParams already is kept.
    """
    weight_collections = {PARAMS: (), **(var_collection_map or {})}
    boxed = {}
    for collection, variables in var_tree.items():
        if collection.endswith(AXES_SUFFIX):
            continue
        axes = var_tree.get(collection + AXES_SUFFIX)
        names: dict[Any, Any] = flatten_dict(partitioning.get_axis_names(axes)) if axes else {}
        boxed[collection] = unflatten_dict(
            {
                path: _box(
                    leaf,
                    names.get(path),
                    rules=logical_axes_rules,
                    mesh_shape=mesh_shape,
                    collections=weight_collections.get(collection, FOREIGN_COLLECTIONS),
                )
                for path, leaf in flatten_dict(variables, keep_empty_nodes=True).items()
            }
        )
    return boxed


def _box(
    leaf: Any,
    names: Iterable[str | None] | None,
    *,
    rules: LogicalAxisRules | None,
    mesh_shape: Sequence[int] | None,
    collections: Sequence[str],
) -> Any:
    """Boxes the arrays of a variable, which may be a tree of arrays."""
    if isinstance(leaf, BoxedParam):
        return leaf
    if isinstance(leaf, nn.Partitioned):
        names = leaf.names
    leaf = flax_meta.unbox(leaf)

    def box(value: jax.Array) -> BoxedParam:
        mapping = None
        if rules is not None and names is not None:
            mesh_axes = spmd.logical_to_mesh(jax.sharding.PartitionSpec(*names), rules)
            mapping = [*mesh_axes, *[None] * (value.ndim - len(mesh_axes))]
        meta = WeightHParams(
            shape=list(value.shape),
            dtype=value.dtype,
            mesh_shape=mesh_shape,
            tensor_split_dims_mapping=mapping,
            collections=list(collections),
        )
        return BoxedParam(value=value, meta=meta)

    return jax.tree.map(box, leaf)

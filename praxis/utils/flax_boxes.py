"""Metadata for the variables of Flax modules, read from their logical axis names."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util
from flax.core import meta as flax_meta
from flax.linen import partitioning

from praxis.core.boxed import BoxedParam
from praxis.core.names import PARAMS
from praxis.core.weights import WeightHParams, WeightHParamsCollection
from praxis.utils.types import LogicalAxisRules

AXES_SUFFIX = "_axes"

FOREIGN_COLLECTION = (
    WeightHParamsCollection.NON_TRAINABLE,
    WeightHParamsCollection.REQUIRES_MEAN_SYNC,
)
"""What a variable outside of `params` is unless the caller says otherwise: batch statistics."""


def convert_to_boxed_params(
    var_tree: Mapping[str, Any],
    logical_axes_rules: LogicalAxisRules | None = None,
    mesh_shape: Sequence[int] | None = None,
    var_collection_map: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Puts each array of a tree of Flax variables into a box with its WeightHParams.

    The sharding comes from the logical axis names, which a module gives in a collection such as
    `params_axes` (`flax.linen.partitioning`) or in a box of Flax (`nn.with_partitioning` and
    `nn.with_logical_partitioning`). Axes without a name are replicated.

    Args:
      var_tree: Variables by collection. Collections that end in `_axes` are not in the result.
      logical_axes_rules: Pairs of a logical name and a mesh axis or None. Without them the axes
        collections are not read.
      mesh_shape: Shape of the mesh.
      var_collection_map: WeightHParams collections of the variables of a collection. By default
        none for `params`, and for others those of batch statistics.

    Returns:
      The variables by collection; what was boxed already is kept.
    """
    special = {PARAMS: (), **(var_collection_map or {})}
    boxed = {}
    for collection, variables in var_tree.items():
        if collection.endswith(AXES_SUFFIX):
            continue
        axes = var_tree.get(collection + AXES_SUFFIX)
        names = {} if axes is None else _axis_names(axes)
        leaves = traverse_util.flatten_dict(nn.unbox_free(variables))
        boxed[collection] = leaves, names
    del special
    return boxed

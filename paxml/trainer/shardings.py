"""Whether a mesh has what the variables of a model ask for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging

from praxis.core.sharding import to_partition_spec
from praxis.core.weights import WeightHParams
from praxis.utils import trees

# A variable that is stored so many times as large as it is gets a warning.
_MUCH_PADDING = 2.0


def check_shardings(
    var_weight_hparams: Any,
    mesh_shape: Sequence[int] | None,
    mesh_axis_names: Sequence[str] | None,
) -> None:
    """Refuses shardings that a mesh does not have, before anything is compiled.

    A dim need not divide over its mesh axes: it is stored padded. Where that makes a variable
    several times as large, a warning says so.

    Args:
      var_weight_hparams: `WeightHParams` of all variables.
      mesh_shape: Sizes of the mesh axes; None: there is no mesh.
      mesh_axis_names: Their names.

    Raises:
      ValueError: naming the variable and the mesh axis, if the mesh has no such axis, or two dims
        ask for the same one.
    """
    if mesh_shape is None or mesh_axis_names is None:
        return
    sizes = dict(zip(mesh_axis_names, mesh_shape, strict=True))
    for path, hparams in jax.tree_util.tree_leaves_with_path(
        var_weight_hparams, is_leaf=lambda x: isinstance(x, WeightHParams)
    ):
        _check(trees.path_text(path), hparams, sizes)


def _check(path: str, hparams: WeightHParams, sizes: Mapping[str, int]) -> None:
    title = f"Variable {path!r} of shape {list(hparams.full_shape)}"
    try:
        spec = to_partition_spec(hparams.full_split_dims_mapping, list(sizes))
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error
    by_dim = [() if axes is None else (axes,) if isinstance(axes, str) else axes for axes in spec]
    used = [axis for axes in by_dim for axis in axes]
    if twice := sorted({axis for axis in used if used.count(axis) > 1}):
        raise ValueError(
            f"{title}: its sharding {list(spec)} uses the mesh axis {twice[0]!r} twice. A mesh "
            "axis can split one dim of an array; leave the other dim None."
        )
    shards = [math.prod(sizes[axis] for axis in axes) for axes in by_dim]
    padded = [
        -(-size // count) * count for size, count in zip(hparams.full_shape, shards, strict=True)
    ]
    if math.prod(padded) > _MUCH_PADDING * math.prod(hparams.full_shape):
        logging.warning(
            "%s is split into %s parts, so it is stored padded, as %s. Split another dim of it, "
            "or over fewer devices.",
            title,
            shards,
            padded,
        )

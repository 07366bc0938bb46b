"""From split-dims mappings of layers to partition specs and sharding constraints."""

import difflib
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from praxis.core.context import JaxContext
from praxis.core.names import PMAP_PARALLEL_AXIS_NAME
from praxis.core.weights import SplitDimsMapping, WeightHParams
from praxis.utils.mesh import with_sharding_constraint

UNCONSTRAINED = PartitionSpec.UNCONSTRAINED


def to_partition_spec(
    split_dims_mapping: SplitDimsMapping, mesh_axis_names: Sequence[str]
) -> PartitionSpec:
    """Returns the PartitionSpec of a mapping.

    Args:
      split_dims_mapping: One entry a dim: None or a negative number replicates, a number is an
        index into the axis names, a string a name, a list several axes on one dim.
      mesh_axis_names: Names of the mesh axes.

    Raises:
      ValueError: if an entry names no mesh axis.
    """

    def axis(entry: Any) -> Any:
        if entry is None or (isinstance(entry, int) and entry < 0):
            return None
        if isinstance(entry, int):
            if entry < len(mesh_axis_names):
                return mesh_axis_names[entry]
        elif isinstance(entry, str):
            if entry in mesh_axis_names:
                return entry
        elif isinstance(entry, (tuple, list)):
            return tuple(name for name in map(axis, entry) if name is not None)
        near = difflib.get_close_matches(str(entry), mesh_axis_names, n=1)
        raise ValueError(
            f"Split-dims mapping {split_dims_mapping} asks for mesh axis {entry!r}, but the mesh "
            f"has the axes {list(mesh_axis_names)}. Name one of them, or None for a dim that is "
            f"not split.{f' Did you mean {near[0]!r}?' if near else ''}"
        )

    return PartitionSpec(*map(axis, split_dims_mapping or ()))


def transpose_one_axis(axis: Any, mesh_axes_transpose: dict[str, Any] | None) -> Any:
    """Returns the real mesh axes of one entry of a PartitionSpec.

    Args:
      axis: None, a name, UNCONSTRAINED or a sequence of names.
      mesh_axes_transpose: Real axis by annotated name.
    """
    if axis is None or axis is UNCONSTRAINED or not mesh_axes_transpose:
        return axis
    if isinstance(axis, str):
        return mesh_axes_transpose.get(axis, axis)
    renamed = (transpose_one_axis(name, mesh_axes_transpose) for name in axis)
    return tuple(name for name in renamed if name)


def maybe_transpose_mesh_axes(partition_spec: PartitionSpec) -> PartitionSpec:
    """Returns the spec with its axes renamed as the current JaxContext says."""
    context = JaxContext.top()
    if context is None or not context.hparams.mesh_axes_transpose:
        return partition_spec
    renaming = context.hparams.mesh_axes_transpose
    return PartitionSpec(*(transpose_one_axis(axis, renaming) for axis in partition_spec))


def maybe_shard(
    x: jax.Array,
    split_dims_mapping: SplitDimsMapping = None,
    mesh_axis_names: Sequence[str] | None = None,
    unconstrained_dims: Sequence[int] | None = None,
) -> jax.Array:
    """Annotates an array with its sharding; the identity without mapping, names or active mesh.

    Args:
      x: The array.
      split_dims_mapping: One entry a dim, see `to_partition_spec`.
      mesh_axis_names: Names of the mesh axes.
      unconstrained_dims: Dims whose sharding the compiler chooses.

    Raises:
      ValueError: if the mapping and the array differ in rank, or an axis does not exist.
    """
    if split_dims_mapping is None or mesh_axis_names is None:
        return x
    if len(x.shape) != len(split_dims_mapping):
        raise ValueError(
            f"Split-dims mapping {split_dims_mapping} has {len(split_dims_mapping)} entries, but "
            f"the array has shape {x.shape} of rank {len(x.shape)}."
        )
    spec = list(to_partition_spec(split_dims_mapping, mesh_axis_names))
    for dim in unconstrained_dims or ():
        spec[dim] = UNCONSTRAINED
    return with_sharding_constraint(x, maybe_transpose_mesh_axes(PartitionSpec(*spec)))


def var_partition_specs(
    var_specs: Any, mesh_shape: Sequence[int], device_axis_names: Sequence[str]
) -> Any:
    """Returns a tree of PartitionSpecs of a tree of WeightHParams.

    Args:
      var_specs: Tree of WeightHParams; stacked dims are taken into account.
      mesh_shape: Sizes of the mesh axes.
      device_axis_names: Names of the mesh axes.

    Raises:
      ValueError: if sizes and names differ in number, or an axis does not exist.
    """
    if len(mesh_shape) != len(device_axis_names):
        raise ValueError(
            f"Mesh shape {list(mesh_shape)} and axis names {list(device_axis_names)} differ in "
            "length."
        )
    return jax.tree.map(
        lambda spec: to_partition_spec(spec.full_split_dims_mapping, device_axis_names),
        var_specs,
        is_leaf=lambda x: isinstance(x, WeightHParams),
    )


def is_running_under_pmap() -> bool:
    """Returns whether an axis named 'batch' is bound, as under Pax's old `pmap` trainer."""
    try:
        jax.lax.axis_size(PMAP_PARALLEL_AXIS_NAME)
    except NameError:
        return False
    return True

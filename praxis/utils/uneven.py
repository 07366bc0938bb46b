"""Uneven sharding: variables whose dims do not divide over the mesh are stored padded."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from praxis.utils.mesh import with_sharding_constraint
from praxis.utils.trees import is_bprop_masked_node, is_optax_masked_node


def get_uneven_sharding_paddings(
    partition_spec: PartitionSpec,
    shape: Sequence[int],
    mesh_shape: Sequence[int],
    mesh_axis_names: Sequence[str],
) -> list[int]:
    """Rows to add to each dim so that the mesh axes it is sharded over divide it.

    Raises:
      ValueError: if the spec names an axis that the mesh does not have.
    """
    sizes = dict(zip(mesh_axis_names, mesh_shape, strict=True))
    paddings = [0] * len(shape)
    for i, axes in enumerate(partition_spec):
        names = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
        if unknown := [name for name in names if name not in sizes]:
            raise ValueError(
                f"{partition_spec} of shape {tuple(shape)} names the mesh axes {unknown}, but the "
                f"mesh has {list(mesh_axis_names)}."
            )
        paddings[i] = -shape[i] % math.prod(sizes[name] for name in names)
    return paddings


def _is_masked(x: Any) -> bool:
    return is_bprop_masked_node(x) or is_optax_masked_node(x)


def _is_placeholder(x: Any) -> bool:
    """Masked nodes, and the arrays of shape (0,) that stand for excluded optimizer state."""
    return _is_masked(x) or tuple(x.shape) == (0,)


def _shape_of(shape: Any) -> tuple[int, ...]:
    return tuple(getattr(shape, "shape", shape))


def maybe_pad_uneven_sharding(
    xs: Any,
    partition_specs: Any,
    unpadded_shapes: Any,
    mesh_shape: Sequence[int],
    mesh_axis_names: Sequence[str],
) -> Any:
    """Pads arrays with zeros at the end of each dim that its mesh axes do not divide.

    Args:
      xs: Tree of arrays. Masked nodes and arrays of shape (0,) are returned as they are.
      partition_specs: Tree of PartitionSpec.
      unpadded_shapes: Tree of shapes, or of things with a shape.
      mesh_shape: Size of each mesh axis.
      mesh_axis_names: Their names.

    Returns:
      Tree of padded arrays.
    """

    def pad(x: Any, spec: PartitionSpec, shape: Any) -> Any:
        if _is_placeholder(x):
            return x
        paddings = get_uneven_sharding_paddings(spec, _shape_of(shape), mesh_shape, mesh_axis_names)
        if not any(paddings):
            return x
        padded = jnp.pad(x, [(0, padding) for padding in paddings])
        return with_sharding_constraint(padded, spec)

    return jax.tree.map(pad, xs, partition_specs, unpadded_shapes, is_leaf=_is_masked)


def maybe_slice_uneven_sharding(
    xs: Any,
    partition_spec: Any,
    unpadded_shapes: Any,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """Cuts what `maybe_pad_uneven_sharding` added.

    Args:
      xs: Tree of arrays.
      partition_spec: Tree of PartitionSpec of the padded arrays.
      unpadded_shapes: Tree of shapes, or of things with a shape.
      is_leaf: As in `jax.tree.map`, in addition to masked nodes.

    Returns:
      Tree of arrays of the unpadded shapes.
    """

    def cut(x: Any, spec: PartitionSpec, shape: Any) -> Any:
        del spec  # What is left of an unevenly sharded array has no sharding of its own.
        if _is_placeholder(x) or x.shape == _shape_of(shape):
            return x
        return jax.lax.slice(x, (0,) * x.ndim, _shape_of(shape))

    def stop(x: Any) -> bool:
        return _is_masked(x) or (is_leaf is not None and is_leaf(x))

    return jax.tree.map(cut, xs, partition_spec, unpadded_shapes, is_leaf=stop)

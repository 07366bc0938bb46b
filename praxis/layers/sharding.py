"""Sharding of arrays by mappings of mesh axis names, and of the outputs of layers.

A mapping has one entry a dim: None, a mesh axis, or a tuple of mesh axes. An equation such as
"btd->db" names the dims of a mapping on its left and those of an array on its right.
"""

import math
import re
from typing import Any

import jax
from jaxtyping import Array, Shaped

from praxis import base_layer
from praxis.utils import mesh

SplitDimsMapping = base_layer.SplitDimsMapping
UNCONSTRAINED = jax.sharding.PartitionSpec.UNCONSTRAINED

UNCONSTRAINED_LETTER = "?"


def derive(s: SplitDimsMapping, eqn: str) -> tuple[Any, ...] | None:
    """Rearranges a mapping for an array with other dims.

    Args:
      s: A mapping, or None.
      eqn: E.g. "ab->bca". A letter that only the right side has is replicated; `?` on the right
        leaves a dim to the compiler.

    Returns:
      A mapping with one entry a letter on the right; None if `s` is None.

    Raises:
      ValueError: if `eqn` has no arrow, or not one letter on the left for each entry of `s`.

    Example:
      >>> derive(("data", None, "mdl"), "btd->db")
      ('mdl', 'data')
    """
    if s is None:
        return None
    source, arrow, target = eqn.replace(" ", "").partition("->")
    if not arrow or len(source) != len(s):
        raise ValueError(
            f"eqn is {eqn!r}, expected 'letters->letters' with one letter on the left for each of "
            f"the {len(s)} entries of the mapping {s}."
        )
    entries: dict[str, Any] = dict(zip(source, s, strict=True))
    entries[UNCONSTRAINED_LETTER] = UNCONSTRAINED
    return tuple(entries.get(letter) for letter in target)


def get_dim_sharding(s: SplitDimsMapping, dim: int) -> Any:
    """Returns the entry of a dim of a mapping; None if there is no mapping."""
    return None if s is None else s[dim]


def num_shards_on_dim(dim_sharding: Any) -> int:
    """Counts the shards of a dim on the active mesh.

    Args:
      dim_sharding: The entry of the dim in a mapping.

    Returns:
      The product of the sizes of its mesh axes; 1 without a mesh.

    Raises:
      ValueError: if the active mesh has no such axis.
    """
    sizes = mesh.active_mesh_axis_sizes()
    if dim_sharding is None or not sizes:
        return 1
    axes = (dim_sharding,) if isinstance(dim_sharding, str) else tuple(dim_sharding)
    for axis in axes:
        if axis not in sizes:
            raise ValueError(f"Mesh axis {axis!r} is unknown, the active mesh has {sizes}.")
    return math.prod(sizes[axis] for axis in axes)


def shard(
    x: Shaped[Array, "..."], s: SplitDimsMapping, eqn: str | None = None
) -> Shaped[Array, "..."]:
    """Constrains the sharding of an array; does nothing without an active mesh or mapping.

    Args:
      x: The array.
      s: A mapping, or None.
      eqn: How to `derive` the mapping of `x` from `s`; None takes `s` as it is. The right side may
        hold one optional group, e.g. "btd->b[t]d": its letters count only if `x` has enough dims.

    Raises:
      ValueError: if the mapping does not have the rank of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> shard(jnp.ones([2, 3]), ("data", None, "mdl"), "btd->b[t]d").shape
      (2, 3)
    """
    if s is None or not mesh.global_mesh_defined():
        return x
    if eqn is not None:
        s = derive(s, _resolve_group(eqn, x.ndim))
    if s is None or len(s) != x.ndim:
        raise ValueError(
            f"The array has shape {x.shape} of rank {x.ndim}, the mapping {s} does not have one "
            f"entry a dim (eqn is {eqn!r})."
        )
    return _constrain(x, s)


def _resolve_group(eqn: str, rank: int) -> str:
    """Keeps or drops the optional group so that the right side has `rank` letters."""
    source, arrow, target = eqn.partition("->")
    kept = re.sub(r"[\[\]\s]", "", target)
    dropped = re.sub(r"\[.*\]|\s", "", target)
    return source + arrow + (kept if len(kept) == rank else dropped)


def shard_one_dim(x: Shaped[Array, "..."], s: Any, dim: int) -> Shaped[Array, "..."]:
    """Constrains the sharding of one dim and leaves the others to the compiler.

    Args:
      x: The array.
      s: The entry of this dim in a mapping: None, a mesh axis or a tuple of them.
      dim: The dim, from the end if negative.
    """
    if not mesh.global_mesh_defined():
        return x
    mapping: list[Any] = [UNCONSTRAINED] * x.ndim
    mapping[dim] = tuple(s) if isinstance(s, list) else s
    return _constrain(x, mapping)


def _constrain(x: Shaped[Array, "..."], mapping: Any) -> Shaped[Array, "..."]:
    spec = jax.sharding.PartitionSpec(
        *(tuple(entry) if isinstance(entry, list) else entry for entry in mapping)
    )
    return mesh.with_sharding_constraint(x, base_layer.maybe_transpose_mesh_axes(spec))


def shard_output(
    layer: base_layer.BaseLayer, outputs: Shaped[Array, "..."], *, field: str = "out"
) -> Shaped[Array, "..."]:
    """Annotates an output of a layer with a sharding of its `activation_split_dims_mapping`.

    In a decoding step the output has lost its time axis. Then `extend_step_out` wins, where the
    layer has that field and it is set, and otherwise the time entry of a mapping of three is left
    out.

    Args:
      layer: The layer.
      outputs: What it computed.
      field: Name of the mapping.
    """
    sharding = layer.activation_split_dims_mapping
    mapping = getattr(sharding, field)
    if outputs.ndim == 2:
        step = getattr(sharding, "extend_step_out", None)
        if step is not None:
            mapping = step
        elif mapping is not None and len(mapping) == 3:
            mapping = [mapping[0], mapping[2]]
    return base_layer.maybe_shard(outputs, mapping, layer.mesh_axis_names)

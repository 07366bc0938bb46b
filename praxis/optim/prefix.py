"""Grouping of variables by the stack of layers that they are in."""

import copy
from typing import Any

import jax
import optax

from praxis.core.nested_map import NestedMap
from praxis.core.weights import WeightHParams
from praxis.optim.specs import NestedWeightHParams
from praxis.optim.trees import is_masked, map_unmasked

NO_PREFIX_KEY = "no_prefix"


def _encode_axis(axis: Any, separator: str) -> str:
    """One dim of a sharding as text: int -> i0, str -> sdata, tuple -> tsdata,smdl, None -> ''."""
    if axis is None:
        return ""
    if isinstance(axis, int):
        return f"i{axis}"
    if isinstance(axis, str):
        if any(mark in axis for mark in (".", ",", separator)):
            raise ValueError(
                f"Mesh axis {axis!r} holds '.', ',' or {separator!r}, which separate the parts of "
                f"keys in the optimizer state. Rename the axis or set another repeat_prefix_sep."
            )
        return f"s{axis}"
    return "t" + ",".join(_encode_axis(part, separator) for part in axis)


def _encode_axes(axes: Any, separator: str) -> str:
    return ".".join(_encode_axis(axis, separator) for axis in axes)


def _is_replicated(axes: Any) -> bool:
    return axes is None or all(axis is None or axis == -1 for axis in axes)


def prefix_split(var: WeightHParams) -> list[Any]:
    """The sharding of the stacking dims, -1 each when there is none."""
    if not var.repeat_prefix:
        return []
    return list(var.repeat_prefix_split_dims_mapping or [-1] * len(var.repeat_prefix))


def prefix_key(var: WeightHParams, separator: str) -> str:
    """The group of a variable, e.g. "no_prefix" or "p#2.3#sdata.i-1".

    The parts are the stacking dims, their sharding, and their sharding in the optimizer if any.
    These keys are part of the paths in checkpoints.
    """
    if not var.repeat_prefix:
        return NO_PREFIX_KEY
    parts = [
        "p",
        ".".join(str(dim) for dim in var.repeat_prefix),
        _encode_axes(prefix_split(var), separator),
    ]
    if not _is_replicated(var.repeat_optimizer_dims_mapping):
        parts.append(_encode_axes(var.repeat_optimizer_dims_mapping, separator))
    return separator.join(parts)


class PrefixGroups:
    """The variables of a model by the stacking dims in front of them.

    Attributes:
      keys: keys of the groups in the order they are visited; "no_prefix" is always one.
      examples: one variable of each group that has any.
    """

    def __init__(self, var_hparams: NestedWeightHParams, separator: str) -> None:
        self._keys = map_unmasked(lambda var: prefix_key(var, separator), var_hparams)
        self.examples: dict[str, WeightHParams] = {}
        for var in jax.tree.leaves(var_hparams):
            self.examples.setdefault(prefix_key(var, separator), var)
        self.keys = sorted({NO_PREFIX_KEY, *self.examples})

    def prefix(self, key: str) -> tuple[int, ...]:
        """Sizes of the stacking dims of a group, outermost first."""
        return tuple(self.examples[key].repeat_prefix or ()) if key in self.examples else ()

    def split(self, key: str) -> list[Any]:
        """Sharding of the stacking dims of a group."""
        return prefix_split(self.examples[key]) if key in self.examples else []

    def spmd_axis_names(self, key: str) -> list[Any]:
        """For each stacking dim of a group, the mesh axes of its optimizer state, or None."""
        prefix = self.prefix(key)
        mapping = self.examples[key].repeat_optimizer_dims_mapping if prefix else None
        if mapping is None:
            return [None] * len(prefix)
        if len(mapping) != len(prefix):
            raise ValueError(
                f"repeat_optimizer_dims_mapping {mapping} has {len(mapping)} entries for "
                f"repeat_prefix {list(prefix)}, expected equal lengths."
            )
        return [None if axis == -1 else axis for axis in mapping]

    def take(self, tree: Any, key: str) -> Any:
        """The whole tree with `optax.MaskedNode` in place of the variables of other groups."""
        return jax.tree.map(
            lambda own, leaf: leaf if is_masked(own) or own == key else optax.MaskedNode(),
            self._keys,
            tree,
            is_leaf=is_masked,
        )

    def split_tree(self, tree: Any) -> NestedMap:
        """The tree of each group by key."""
        return NestedMap({key: self.take(tree, key) for key in self.keys})

    def merge(self, trees: dict[str, Any]) -> Any:
        """The inverse of `split_tree`."""
        index = {key: position for position, key in enumerate(self.keys)}
        return jax.tree.map(
            lambda own, *groups: groups[0 if is_masked(own) else index[own]],
            self._keys,
            *(trees[key] for key in self.keys),
            is_leaf=is_masked,
        )


def without_prefix(var: WeightHParams) -> WeightHParams:
    """The description of one layer's variable."""
    var = copy.deepcopy(var)
    var.repeat_prefix = None
    var.repeat_prefix_split_dims_mapping = None
    var.repeat_optimizer_dims_mapping = None
    return var

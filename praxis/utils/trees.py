"""Trees by path and by structure: path texts, matching, subsets, selection, stacking."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging
from jax.sharding import PartitionSpec

from praxis.core.nested_map import NestedMap

IsLeaf = Callable[[Any], bool] | None
Patterns = str | re.Pattern[str] | Sequence[str | re.Pattern[str]]


class BpropMaskedNode(NamedTuple):
    """Stands for a variable that is excluded from back-propagation; it has no children."""


def is_bprop_masked_node(x: Any) -> bool:
    """Whether `x` stands for a variable excluded from back-propagation."""
    return isinstance(x, BpropMaskedNode)


def is_optax_masked_node(x: Any) -> bool:
    """Whether `x` stands for a leaf excluded by `optax.masked`."""
    return isinstance(x, optax.MaskedNode)


def _entry_text(entry: Any, left: str, right: str) -> tuple[str, bool]:
    """Text of one step of a key path, and whether it is glued to its parent."""
    match entry:
        case jax.tree_util.SequenceKey(idx=index):
            return f"{left}{index}{right}", True
        case jax.tree_util.DictKey(key=key) | jax.tree_util.FlattenedIndexKey(key=key):
            return str(key), False
        case jax.tree_util.GetAttrKey(name=name):
            return name, False
        case _:
            return str(entry), False


def path_text(
    path: Sequence[Any],
    *,
    prefix: str = "",
    key_separator: str = "/",
    left_separator: str = "[",
    right_separator: str = "]",
) -> str:
    """Text of a JAX key path: `a[2]/x`."""
    text = prefix
    for entry in path:
        step, glued = _entry_text(entry, left_separator, right_separator)
        text += step if glued or not text else key_separator + step
    return text


def to_path_tree(tree: Any, is_leaf: IsLeaf = None) -> Any:
    """The same structure with each leaf's path as text, e.g. `a[2]/x`.

    Where `is_leaf` is true the result holds None. Empty nodes stay.
    """

    def text(path: Sequence[Any], leaf: Any) -> str | None:
        return None if is_leaf is not None and is_leaf(leaf) else path_text(path)

    return jax.tree_util.tree_map_with_path(text, tree, is_leaf=is_leaf)


def extract_prefixed_keys_from_nested_map(
    node: Any,
    prefix: str = "",
    key_separator: str = "/",
    left_separator: str = "[",
    right_separator: str = "]",
    is_leaf: IsLeaf = None,
) -> Any:
    """As `to_path_tree`, below a prefix and with other separators.

    A PartitionSpec is a leaf. A leaf at the root has the prefix for its path, None without one.
    """
    return extract_keys(node, prefix, key_separator, left_separator, right_separator, is_leaf)


def extract_keys(
    n: Any,
    p: str,
    key_separator: str,
    left_separator: str,
    right_separator: str,
    is_leaf: IsLeaf = None,
) -> Any:
    """As `extract_prefixed_keys_from_nested_map`, without defaults; kept for its callers."""

    def is_excluded(x: Any) -> bool:
        return is_leaf is not None and is_leaf(x)

    def text(path: Sequence[Any], leaf: Any) -> str | None:
        if is_excluded(leaf):
            return None
        name = path_text(
            path,
            prefix=p,
            key_separator=key_separator,
            left_separator=left_separator,
            right_separator=right_separator,
        )
        return name or None

    return jax.tree_util.tree_map_with_path(
        text, n, is_leaf=lambda x: isinstance(x, PartitionSpec) or is_excluded(x)
    )


def fullmatch_path(tree: Any, patterns: Patterns, is_leaf: IsLeaf = None) -> Any:
    """Booleans: whether the whole path of a leaf matches any of the patterns."""
    several = [patterns] if isinstance(patterns, str | re.Pattern) else patterns
    compiled = [re.compile(pattern) for pattern in several]

    def matches(path: Sequence[Any], leaf: Any) -> bool:
        text = path_text(path)
        return any(pattern.fullmatch(text) is not None for pattern in compiled)

    return jax.tree_util.tree_map_with_path(matches, tree, is_leaf=is_leaf)


def update_matched_variables(
    old_tree: Any, new_tree: Any, patterns: Patterns, invert: bool = False
) -> Any:
    """Takes leaves whose path matches from `new_tree`, the others from `old_tree`.

    `invert` swaps the two. Which leaf came from where is logged at debug level.
    """
    matched = fullmatch_path(old_tree, patterns)
    lines: list[str] = []

    def choose(path: Sequence[Any], match: bool, old: Any, new: Any) -> Any:
        is_new = match != invert
        lines.append(f"{'new' if is_new else 'old'}  {path_text(path)}")
        return new if is_new else old

    updated = jax.tree_util.tree_map_with_path(choose, matched, old_tree, new_tree)
    logging.debug("Variables and the tree they are taken from:\n%s", "\n".join(lines))
    return updated


def is_subset(subset: Any, superset: Any) -> bool:
    """Whether one structure is contained in another.

    Dicts of any kind: each key is in the other, recursively. Lists and tuples: a prefix of the
    other. Anything else: equal. Values of differing types are not contained.
    """
    if isinstance(subset, Mapping) and isinstance(superset, Mapping):
        return all(
            key in superset and is_subset(value, superset[key]) for key, value in subset.items()
        )
    if type(subset) is not type(superset):
        return False
    if isinstance(subset, list | tuple):
        return len(subset) <= len(superset) and all(map(is_subset, subset, superset))
    return bool(np.all(subset == superset))


def extract_elements_matching_subset_structure(subset: Any, superset: Any) -> Any:
    """The values of `superset` in the structure of `subset`; leaves may be of differing types.

    Raises:
      ValueError: if the structure of `subset` is not contained in that of `superset`.
    """

    def fail(problem: str) -> ValueError:
        return ValueError(f"{problem}: {subset} is not contained in {superset}.")

    if isinstance(subset, Mapping):
        if not isinstance(superset, Mapping):
            raise fail(f"A {type(superset).__name__} stands where a dict is expected")
        if missing := [key for key in subset if key not in superset]:
            raise fail(f"Missing keys {missing}")
        extracted = {
            key: extract_elements_matching_subset_structure(value, superset[key])
            for key, value in subset.items()
        }
        return NestedMap(extracted) if isinstance(subset, NestedMap) else extracted
    if isinstance(subset, list | tuple):
        if type(subset) is not type(superset):
            raise fail(
                f"A {type(superset).__name__} stands where a {type(subset).__name__} is expected"
            )
        if len(subset) > len(superset):
            raise fail(f"Length {len(superset)} is less than {len(subset)}")
        items = list(map(extract_elements_matching_subset_structure, subset, superset))
        return type(subset)(*items) if hasattr(subset, "_fields") else type(subset)(items)
    return superset


def get_shape_dtype(nested_obj: Any) -> Any:
    """Each array's shape and dtype, as `jax.ShapeDtypeStruct`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nested_obj)


def copy(pytree: Any) -> Any:
    """The same leaves in new containers."""
    return jax.tree.map(lambda leaf: leaf, pytree)


def select_nodes_by_indices(indices: Any, *trees: Any) -> Any:
    """Takes each leaf from the tree whose number stands in its place in `indices`.

    Raises:
      IndexError: if there is no tree of that number.
    """
    return jax.tree.map(lambda index, *nodes: nodes[index], indices, *trees)


def tree_unstack(tree: Any, axis: int) -> list[Any]:
    """Splits a tree of arrays along an axis into a list of trees.

    A tree without leaves gives no trees; a tree of scalars is returned as the only one.

    Raises:
      ValueError: if a leaf is not an array, or if the arrays disagree on the size of the axis.
    """
    leaves, treedef = jax.tree.flatten(tree)
    if not leaves:
        return []
    kinds = (jax.Array, np.ndarray, np.generic, int, float)
    if bad := [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, kinds)]:
        raise ValueError(f"tree_unstack: leaves must be arrays, got {sorted(set(bad))}.")
    ranks = [np.ndim(leaf) for leaf in leaves]
    if not any(ranks):
        return [tree]
    if any(not -rank <= axis < rank for rank in ranks):
        shapes = [np.shape(leaf) for leaf in leaves]
        raise ValueError(f"tree_unstack: not all leaves have axis {axis}; their shapes: {shapes}.")
    sizes = {leaf.shape[axis] for leaf in leaves}
    if len(sizes) > 1:
        raise ValueError(
            f"tree_unstack: leaves have different sizes along axis {axis}: {sorted(sizes)}."
        )
    rows = [[leaf.take(i, axis=axis) for leaf in leaves] for i in range(sizes.pop())]
    return [treedef.unflatten(row) for row in rows]


def concat_nested_maps(map_list: Sequence[Mapping[str, Any]], axis: int) -> Any:
    """Concatenates the arrays of several maps, key by key.

    Maps inside are treated alike. Arrays without the axis, other values, and keys that a later
    map lacks are taken from the first map. A single map is returned as it is.

    Raises:
      ValueError: if there are no maps.
    """
    if not map_list:
        raise ValueError("concat_nested_maps: expected at least one map, got none.")
    first, *rest = map_list
    if not rest:
        return first
    joined = NestedMap()
    for key, value in first.items():
        others = [other[key] for other in rest if key in other]
        if not others:
            joined[key] = value
        elif isinstance(value, Mapping):
            joined[key] = concat_nested_maps([value, *others], axis)
        elif isinstance(value, jax.Array | np.ndarray) and value.ndim > axis:
            joined[key] = _concatenate([value, *others], axis)
        else:
            joined[key] = value
    return joined


def _concatenate(arrays: Sequence[Any], axis: int) -> Any:
    """Concatenates, on the host where all arrays are there."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np.concatenate(arrays, axis=axis)
    return jax.numpy.concatenate(arrays, axis=axis)


def filter_by_matching_keys(
    batch: Mapping[str, Any], prefixes: Sequence[str]
) -> tuple[NestedMap, NestedMap]:
    """Splits the top level of a map: keys that start with any prefix, and the rest."""
    matched, rest = NestedMap(), NestedMap()
    for key, value in batch.items():
        target = matched if key.startswith(tuple(prefixes)) else rest
        target[key] = value
    return matched, rest


def merge_dict(dict1: dict[str, Any], dict2: dict[str, Any]) -> dict[str, Any]:
    """The union of two dicts; a key of both must hold the same object.

    Raises:
      ValueError: if a key of both holds different objects.
    """
    for key in dict1.keys() & dict2.keys():
        if dict1[key] is not dict2[key]:
            raise ValueError(
                f"merge_dict: key {key!r} is in both, with different values {dict1[key]!r} and "
                f"{dict2[key]!r}."
            )
    return {**dict1, **dict2}


def assert_same_shape_and_dtype(x: Any, y: Any) -> None:
    """Checks that two trees of arrays agree in structure, shapes and dtypes.

    Raises:
      ValueError: if they do not; names the leaves that differ.
    """
    left, right = jax.tree.structure(x), jax.tree.structure(y)
    if left != right:
        raise ValueError(f"The trees have different structures: {left} and {right}.")

    def describe(path: Sequence[Any], a: Any, b: Any) -> str:
        if a.shape == b.shape and a.dtype == b.dtype:
            return ""
        name = path_text(path) or "root"
        return f"{name}: {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}"

    found = jax.tree.leaves(jax.tree_util.tree_map_with_path(describe, x, y))
    if differences := "; ".join(filter(None, found)):
        raise ValueError(f"The trees differ in shape or dtype. {differences}.")


def total_num_vars(variables: Any) -> int:
    """Sum of the sizes of all arrays."""
    return sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in jax.tree.leaves(variables))

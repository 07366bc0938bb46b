"""Names of the leaves of a train state on disk."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SEPARATOR = "."


def leaf_name(path: tuple[Any, ...]) -> str:
    """Joins the keys of a path with dots; an index i is appended to the key before it as `_i`.

    These names are the format of published checkpoints.

    Example:
      >>> tree = {"opt_states": [({"count": 0},)]}
      >>> [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
      ['opt_states_0_0.count']
    """
    parts: list[str] = []
    for key in path:
        if isinstance(key, jax.tree_util.SequenceKey | jax.tree_util.FlattenedIndexKey):
            index = key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key
            parts.append(f"{parts.pop() if parts else ''}_{index}")
        else:
            parts.append(jax.tree_util.keystr((key,), simple=True))
    return SEPARATOR.join(parts)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves that have data, by name; masked nodes and arrays of size 0 have none.

    Raises:
      ValueError: if two leaves get the same name.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if 0 in np.shape(leaf):
            continue
        name = leaf_name(path)
        if name in named:
            raise ValueError(
                f"Two leaves of the train state are both named {name!r} on disk. Rename one of "
                f"them; the second is {jax.tree_util.keystr(path)}."
            )
        named[name] = leaf
    return named


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the nested dict whose paths, joined by dots, are the names.

    Raises:
      ValueError: if one name is the beginning of another.

    Example:
      >>> nest({"step": 1, "mdl_vars.params.w": 2})
      {'step': 1, 'mdl_vars': {'params': {'w': 2}}}
    """
    root: dict[str, Any] = {}
    for name, leaf in named.items():
        *outer, last = name.split(SEPARATOR)
        node = root
        for part in outer:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or last in node:
            raise ValueError(f"The leaf {name!r} and another leaf share the beginning of a name.")
        node[last] = leaf
    return root


def look_up(nested: Mapping[str, Any], name: str) -> Any:
    """Returns the leaf of a name in what `nest` made."""
    node: Any = nested
    for part in name.split(SEPARATOR):
        node = node[part]
    return node


def restored_leaf(nested: Mapping[str, Any], path: tuple[Any, ...], leaf: Any) -> Any:
    """Returns the restored array of a leaf of a train state; one of size 0 is not on disk.

    Args:
      nested: What `nest` made, with arrays.
      path: Of the leaf.
      leaf: Its shape, dtype and sharding.
    """
    if 0 in leaf.shape:
        return jnp.zeros(leaf.shape, leaf.dtype, device=getattr(leaf, "sharding", None))
    return look_up(nested, leaf_name(path))

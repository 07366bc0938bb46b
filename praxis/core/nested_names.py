"""Flattened names of nested dicts and lists, e.g. `a.b[1].c`: joining, splitting, look-up."""

import re
from collections.abc import Callable
from typing import Any

_INDEXED = re.compile(r"(?P<name>.*)\[(?P<index>\d+)\]", re.DOTALL)


def join(prefix: str, key: Any) -> str:
    """Name of the child `key` of the node named `prefix`."""
    return f"{prefix}.{key}" if prefix else str(key)


def split_index(name: str) -> tuple[str, int | None]:
    """Splits the last index off: `k[3]` gives `("k", 3)`, `k` gives `("k", None)`."""
    if match := _INDEXED.fullmatch(name):
        return match["name"], int(match["index"])
    return name, None


def _split(node: Any, name: str) -> tuple[str, list[int]]:
    """Key and list indices of one dot-free part of a name, read at `node`."""
    indices: list[int] = []
    # `foo[3]` is a legal key, so an existing one is taken literally.
    while not (isinstance(node, dict) and name in node):
        shorter, index = split_index(name)
        if index is None:
            break
        name, indices = shorter, [index, *indices]
    return name, indices


def get_item(node: Any, name: str) -> Any:
    """The entry of nested dicts, lists and tuples at a flattened name.

    Raises:
      KeyError: if a key on the way is missing.
      IndexError: if a list on the way is too short.
      TypeError: if a key meets something that is not a dict, or an index something that is not a
        list or a tuple.
    """
    for part in name.split("."):
        key, indices = _split(node, part)
        if not isinstance(node, dict):
            raise TypeError(
                f"Name {name!r}: {key!r} is looked up in a {type(node).__name__}, expected a dict."
            )
        node = node[key]
        for index in indices:
            if not isinstance(node, list | tuple):
                raise TypeError(
                    f"Name {name!r}: [{index}] after {key!r} meets a {type(node).__name__}, "
                    "expected a list."
                )
            if index >= len(node):
                raise IndexError(
                    f"Name {name!r}: [{index}] is beyond the list at {key!r}, which has length "
                    f"{len(node)}."
                )
            node = node[index]
    return node


def set_item(root: dict, name: str, value: Any, *, make_map: Callable[[], dict]) -> None:
    """Writes the entry at a flattened name, making missing dicts and lists on the way.

    Raises:
      ValueError: if an index is beyond the length of its list, or if something on the way is
        neither missing nor a container of the kind the name expects.
    """
    node: Any = root
    *parents, last = name.split(".")
    for part in parents:
        container, key = _locate(node, name, part)
        node = _entry(container, key, make_map())
        _put(container, key, node)
    container, key = _locate(node, name, last)
    _put(container, key, value)


def _entry(container: Any, key: Any, default: Any) -> Any:
    """The entry of a dict or list; `default` for a missing key or the index after the last."""
    if isinstance(container, dict):
        return container.get(key, default)
    return container[key] if key < len(container) else default


def _put(container: Any, key: Any, value: Any) -> None:
    """Writes the entry of a dict or list; the index after the last appends."""
    if isinstance(container, list) and key == len(container):
        container.append(value)
    else:
        container[key] = value


def _locate(node: Any, name: str, part: str) -> tuple[Any, Any]:
    """Container and key of one part of a name, after making the lists that its indices need."""
    key: Any
    key, indices = _split(node, part)
    if not isinstance(node, dict):
        raise ValueError(
            f"Cannot set {name!r}: {key!r} would be an entry of a {type(node).__name__}, expected "
            "a dict on the way."
        )
    container: Any = node
    for index in indices:
        items = _entry(container, key, [])
        if not isinstance(items, list):
            raise ValueError(
                f"Cannot set {name!r}: [{index}] would be an entry of a {type(items).__name__}, "
                "expected a list."
            )
        if index > len(items):
            raise ValueError(
                f"Cannot set {name!r}: index {index} is beyond the list, which has length "
                f"{len(items)}; an index equal to the length appends."
            )
        _put(container, key, items)
        container, key = items, index
    return container, key

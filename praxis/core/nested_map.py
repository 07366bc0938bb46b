"""NestedMap: a dict whose items are also attributes, and a JAX pytree."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from absl import logging
from fiddle import daglish
from flax import serialization

from praxis.core import nested_names

_DICT_ATTRIBUTES = frozenset(dir(dict))
_KEY_START = re.compile(r"[A-Za-z_]")
_DROPPED = object()


def _map_leaves(fn: Callable[[str, Any], Any], name: str, node: Any) -> Any:
    """Rebuilds dicts and lists around `fn(name, leaf)`, visiting keys in sorted order."""
    if isinstance(node, dict):
        mapped = type(node)()
        for key in sorted(node):
            mapped[key] = _map_leaves(fn, nested_names.join(name, key), node[key])
        return mapped
    if isinstance(node, list):
        return [_map_leaves(fn, f"{name}[{i}]", item) for i, item in enumerate(node)]
    return fn(name, node)


def _filter_leaves(keep: Callable[[str, Any], bool], name: str, node: Any) -> Any:
    """Drops leaves that fail `keep`, and containers that lost their last entry that way."""
    if isinstance(node, dict):
        kept = type(node)()
        for key in sorted(node):
            item = _filter_leaves(keep, nested_names.join(name, key), node[key])
            if item is not _DROPPED:
                kept[key] = item
    elif isinstance(node, list):
        items = [_filter_leaves(keep, f"{name}[{i}]", item) for i, item in enumerate(node)]
        kept = [item for item in items if item is not _DROPPED]
    else:
        return node if keep(name, node) else _DROPPED
    return _DROPPED if node and not kept else kept


class NestedMap(dict):
    """A dict with string keys that can also be read and written as attributes.

    There are two views of its structure. The methods of this class descend into dicts and lists
    only, so that a tuple or a dataclass is one leaf; they visit keys in sorted order and name a
    leaf by its path, e.g. `a.b[1].c`. As a JAX pytree its children are the values in sorted key
    order and tuples are descended into as usual.

    A key starts with a letter or an underscore and is not the name of a dict attribute; what
    follows its first character is free, because names of variables and summaries contain `/`.

    Raises:
      AssertionError: if a key is not a string, or is the name of a dict attribute.
      ValueError: if a key does not start like an identifier.

    Example:
      >>> batch = NestedMap(ids=1, extra=NestedMap(names=["a", "b"]))
      >>> batch.extra.names[1]
      'b'
      >>> batch.Keys()
      ['extra.names[0]', 'extra.names[1]', 'ids']
      >>> batch.Transform(str).ids
      '1'
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key in self:
            self.CheckKey(key)

    @staticmethod
    def CheckKey(key: Any) -> None:
        """Refuses what cannot be a key.

        Raises:
          AssertionError: if `key` is not a string, or is the name of a dict attribute.
          ValueError: if `key` does not start like an identifier.
        """
        if not isinstance(key, str):
            raise AssertionError(
                f"A NestedMap key must be a str, got {key!r} of type {type(key).__name__}."
            )
        if not _KEY_START.match(key):
            raise ValueError(
                f"Invalid NestedMap key {key!r}: it must start with a letter or an underscore."
            )
        if key in _DICT_ATTRIBUTES:
            raise AssertionError(
                f"NestedMap key {key!r} is reserved: it is the name of a dict attribute. "
                "Choose another name."
            )

    def _missing(self, kind: str, key: Any) -> str:
        message = f"NestedMap has no {kind} {key!r}; available keys: {sorted(self)}."
        close = difflib.get_close_matches(str(key), list(self), n=1)
        return f"{message} Did you mean {close[0]!r}?" if close else message

    def __setitem__(self, key: Any, value: Any) -> None:
        self.CheckKey(key)
        super().__setitem__(key, value)

    def __missing__(self, key: str) -> Any:
        raise KeyError(self._missing("key", key))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(self._missing("key", key))
        super().__delitem__(key)

    def __getattr__(self, name: str) -> Any:
        # Called only after the ordinary look-up failed, so methods win over items.
        try:
            return super().__getitem__(name)
        except KeyError:
            raise AttributeError(self._missing("attribute", name)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(self._missing("attribute", name))
        super().__delitem__(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self, *self.Keys()]

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ior__(self, other: Any) -> "NestedMap":
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As `dict.update`, with the keys checked."""
        items = dict(*args, **kwargs)
        for key in items:
            self.CheckKey(key)
        super().update(items)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As `dict.setdefault`, with the key checked."""
        self.CheckKey(key)
        return super().setdefault(key, default)

    def copy(self) -> "NestedMap":
        """A map of the same type with the same items; nested containers are shared."""
        return type(self)(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> "NestedMap":
        return self.DeepCopy()

    def DeepCopy(self) -> "NestedMap":
        """A map of the same structure with copied dicts and lists and the same leaves."""
        return self.Transform(lambda leaf: leaf)

    @staticmethod
    def SquareBracketIndex(key: str) -> tuple[str, int | None]:
        """Splits the last index off a name: `k[3]` gives `("k", 3)`, `k` gives `("k", None)`."""
        return nested_names.split_index(key)

    def GetItem(self, name: str) -> Any:
        """The entry at a flattened name such as `a.b[1].c`.

        Raises:
          KeyError: if a key on the way is missing.
          IndexError: if a list on the way is too short.
          TypeError: if something on the way is not a container of the kind the name expects.
        """
        return nested_names.get_item(self, name)

    def Get(self, name: str, default: Any = None) -> Any:
        """The entry at a flattened name, or `default` where there is none."""
        try:
            return self.GetItem(name)
        except (KeyError, IndexError, TypeError):
            return default

    def Has(self, name: str) -> bool:
        """Whether the whole path exists."""
        return self.Get(name, _DROPPED) is not _DROPPED

    def Set(self, name: str, value: Any) -> None:
        """Writes the entry at a flattened name, making missing maps and lists on the way.

        An index equal to the length of the list appends.

        Raises:
          ValueError: if an index is beyond the length of its list, or if something on the way is
            neither missing nor a container of the kind the name expects.
        """
        nested_names.set_item(self, name, value, make_map=NestedMap)

    def GetSlice(self, names: Iterable[str]) -> "NestedMap":
        """A new map with the entries at these flattened names, nested as they are here."""
        result = type(self)()
        for name in names:
            result.Set(name, self.GetItem(name))
        return result

    def Update(self, other: Mapping[str, Any]) -> "NestedMap":
        """Sets each flattened entry of `other` in this map, and returns it."""
        for name, value in NestedMap(other).FlattenItems():
            self.Set(name, value)
        return self

    def Union(self, other: Mapping[str, Any]) -> "NestedMap":
        """A new map with the entries of both; `other` wins."""
        return self.DeepCopy().Update(other)

    def FlattenItems(self) -> list[tuple[str, Any]]:
        """Flattened names and leaves."""
        items: list[tuple[str, Any]] = []
        _map_leaves(lambda name, leaf: items.append((name, leaf)), "", self)
        return items

    def Flatten(self) -> list[Any]:
        """The leaves, in sorted key order; a tuple is one leaf."""
        return [leaf for _, leaf in self.FlattenItems()]

    def Keys(self) -> list[str]:
        """Flattened names of the leaves, in the order of `Flatten`."""
        return [name for name, _ in self.FlattenItems()]

    def Transform(self, fn: Callable[[Any], Any]) -> "NestedMap":
        """A map of the same structure with `fn(leaf)` in place of each leaf."""
        return _map_leaves(lambda name, leaf: fn(leaf), "", self)

    def TransformWithKey(self, fn: Callable[[str, Any], Any]) -> "NestedMap":
        """A map of the same structure with `fn(flattened name, leaf)` in place of each leaf."""
        return _map_leaves(fn, "", self)

    def Pack(self, leaves: Iterable[Any]) -> "NestedMap":
        """A map of this structure holding `leaves`: the inverse of `Flatten`.

        Raises:
          ValueError: if there are more or fewer leaves than in this map.
        """
        leaves, keys = list(leaves), self.Keys()
        if len(leaves) != len(keys):
            raise ValueError(
                f"NestedMap.Pack got {len(leaves)} values for {len(keys)} leaves; the template has "
                f"the keys {keys}."
            )
        remaining = iter(leaves)
        return self.Transform(lambda _: next(remaining))

    def IsCompatible(self, other: "NestedMap") -> bool:
        """Whether both have the same flattened names."""
        return self.Keys() == other.Keys()

    def Filter(self, fn: Callable[[Any], bool]) -> "NestedMap":
        """Keeps the leaves for which `fn(leaf)` is true; see `FilterKeyVal`."""
        return self.FilterKeyVal(lambda name, leaf: fn(leaf))

    def FilterKeyVal(self, fn: Callable[[str, Any], bool]) -> "NestedMap":
        """Keeps the leaves for which `fn(flattened name, leaf)` is true.

        A container that loses all its entries is dropped too; one that was empty before stays.
        """
        kept = _filter_leaves(fn, "", self)
        return type(self)() if kept is _DROPPED else kept

    @staticmethod
    def FromNestedDict(x: Any) -> Any:
        """Turns each mapping inside nested dicts, lists and tuples into a NestedMap."""
        convert = NestedMap.FromNestedDict
        if isinstance(x, Mapping):
            return NestedMap({key: convert(value) for key, value in x.items()})
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return type(x)(*map(convert, x))
        if isinstance(x, list | tuple):
            return type(x)(map(convert, x))
        return x

    @staticmethod
    def FromNestedDataclass(x: Any) -> "NestedMap":
        """The fields of a dataclass instance, recursively, as NestedMaps.

        Raises:
          ValueError: if `x` is not an instance of a dataclass.
        """
        if not dataclasses.is_dataclass(x) or isinstance(x, type):
            raise ValueError(
                f"NestedMap.FromNestedDataclass takes a dataclass instance, got {x!r} of type "
                f"{type(x).__name__}."
            )
        return NestedMap.FromNestedDict(dataclasses.asdict(x))

    def ToNestedDict(self) -> dict[str, Any]:
        """Plain dicts in place of the maps, through dicts and lists."""

        def convert(node: Any) -> Any:
            if isinstance(node, dict):
                return {key: convert(value) for key, value in node.items()}
            return [convert(item) for item in node] if isinstance(node, list) else node

        return convert(self)

    def DebugString(self) -> str:
        """A line per leaf, sorted: its name, padded to a common width, and its value."""
        items = self.FlattenItems()
        width = max((len(name) for name, _ in items), default=0) + 4
        return "\n".join(sorted(f"{name:<{width}}{leaf!s}" for name, leaf in items))

    def VLog(self, level: int = 0, prefix: str = "") -> None:
        """Logs the lines of `DebugString` at a verbosity level."""
        for line in self.DebugString().splitlines():
            logging.vlog(level, "%s %s", prefix, line)


def _flatten_with_keys(tree: NestedMap) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    keys = tuple(sorted(tree))
    return [(jax.tree_util.DictKey(key), tree[key]) for key in keys], keys


def _flatten(tree: NestedMap) -> tuple[list[Any], tuple[str, ...]]:
    keys = tuple(sorted(tree))
    return [tree[key] for key in keys], keys


def _unflatten(keys: tuple[str, ...], values: Iterable[Any]) -> NestedMap:
    tree = NestedMap()
    dict.update(tree, zip(keys, values, strict=True))  # The keys were checked when they came in.
    return tree


def _to_state_dict(tree: NestedMap) -> dict[str, Any]:
    return {key: serialization.to_state_dict(value) for key, value in tree.items()}


def _from_state_dict(tree: NestedMap, state: dict[str, Any]) -> NestedMap:
    # flax checks the keys and names the path where they differ.
    return NestedMap(serialization.from_state_dict(dict(tree), state))


def register_nested_map() -> None:
    """Makes NestedMap known to JAX, to Flax's serialization and to Fiddle; may be called again."""
    # flax's switch for replacing an entry has no counterpart in JAX, so look before registering.
    if jax.tree_util.all_leaves([NestedMap()]):
        jax.tree_util.register_pytree_with_keys(NestedMap, _flatten_with_keys, _unflatten, _flatten)
    serialization.register_serialization_state(
        NestedMap, _to_state_dict, _from_state_dict, override=True
    )
    if not daglish.is_traversable_type(NestedMap):
        daglish.register_node_traverser(
            NestedMap,
            flatten_fn=lambda tree: (tuple(tree.values()), tuple(tree)),
            unflatten_fn=lambda values, keys: _unflatten(keys, values),
            path_elements_fn=lambda tree: tuple(map(daglish.Key, tree)),
        )


register_nested_map()

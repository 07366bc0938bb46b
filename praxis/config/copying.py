"""Copies of config trees that share whatever cannot change."""

import collections
import copy
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import fiddle as fdl
import jax
import numpy as np
from fiddle import daglish
from fiddle import history as fiddle_history

_SHARED_TYPES = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type(Ellipsis),
    range,
    enum.Enum,
    np.generic,
    np.dtype,
    np.ndarray,
    jax.Array,
)


@functools.cache
def is_shared_type(kind: type) -> bool:
    """Returns whether values of this type are immutable or, as arrays, shared by convention."""
    return issubclass(kind, _SHARED_TYPES)


def copy_tree(value: Any, memo: dict[int, Any], leaf: Callable[[Any], Any] | None = None) -> Any:
    """Copies the configs and mutable containers of a tree, and shares the rest.

    Sharing inside the tree is kept: an object in two places is copied once.

    Args:
      value: A config, a container of configs, or any other value.
      memo: Copies by `id` of the original, as `copy.deepcopy` keeps them. Filled in.
      leaf: What to do with an object of unknown kind; None makes a deep copy.

    Returns:
      The copy; immutable values themselves.
    """
    kind = type(value)
    if is_shared_type(kind):
        return value
    known = memo.get(id(value), memo)
    if known is not memo:
        return known
    if isinstance(value, fdl.Buildable):
        arguments: dict[Any, Any] = {}
        result = memo[id(value)] = copy_node(value, arguments)
        for key, argument in value.__arguments__.items():
            arguments[key] = copy_tree(argument, memo, leaf)
        return result
    if kind is list:
        result = memo[id(value)] = []
        result.extend(copy_tree(element, memo, leaf) for element in value)
        return result
    if kind is set:
        result = memo[id(value)] = set(value)
        return result
    if isinstance(value, dict):
        result = memo[id(value)] = copy.copy(value)
        for key, element in value.items():
            dict.__setitem__(result, key, copy_tree(element, memo, leaf))
        return result
    if isinstance(value, tuple):
        elements = [copy_tree(element, memo, leaf) for element in value]
        if all(old is new for old, new in zip(value, elements, strict=True)):
            return value
        if kind is tuple or daglish.is_namedtuple_subclass(kind):
            result = memo[id(value)] = rebuild_tuple(value, elements)
            return result
    return leaf(value) if leaf is not None else copy.deepcopy(value, memo)


def copy_node(
    config: fdl.Buildable, arguments: dict[Any, Any], kind: type[fdl.Buildable] | None = None
) -> Any:
    """Copies one config, without its values: tags and history are its own, the signature is shared.

    Args:
      config: The original.
      arguments: What the copy holds; not copied.
      kind: Class of the copy; None: that of the original.
    """
    result = object.__new__(kind or type(config))
    vars(result).update(vars(config))
    tags = new_tags()
    for name, own in config.__argument_tags__.items():
        if own:
            tags[name] = set(own)
    history = fiddle_history.History()
    for name, entries in config.__argument_history__.items():
        history[name] = list(entries)
    vars(result).update(
        __arguments__=arguments, __argument_tags__=tags, __argument_history__=history
    )
    return result


def new_tags() -> dict[Any, set[Any]]:
    """Returns the empty tags of a config, as Fiddle stores them."""
    return collections.defaultdict(set)


def rebuild_tuple(value: tuple, elements: list[Any]) -> tuple:
    """Returns a tuple or NamedTuple of the type of `value` with other elements."""
    kind = type(value)
    return kind(*elements) if daglish.is_namedtuple_subclass(kind) else kind(elements)

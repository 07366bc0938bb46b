"""Depth-first visits of nested configs and containers, with a text key for each place."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import fiddle as fdl
from fiddle import daglish
from flax import core as flax_core
from flax import linen as nn

_FACTORY = (
    inspect.signature(
        dataclasses.make_dataclass("_", [("x", list, dataclasses.field(default_factory=list))])
    )
    .parameters["x"]
    .default
)


class UnsetFactory:
    """Stands for a field that its class fills in with a plain `default_factory`."""

    def __repr__(self) -> str:
        return "<factory>"


def visit_nested_struct(
    obj_to_visit: Any,
    visit_fn: Callable[[str, Any], Any],
    enter_fn: Callable[[str, Any], bool] | None = None,
    exit_fn: Callable[[str, Any], Any] | None = None,
) -> None:
    """Calls `visit_fn(key, leaf)` for each leaf, depth first.

    Opened are dicts, configs, dataclass instances, NamedTuples, and lists and tuples of configs
    alone. Keys read `a.b`, `a[3]` for elements and `a[field]` for NamedTuples; the root's is ''.

    Args:
      obj_to_visit: The structure.
      visit_fn: Called with key and leaf.
      enter_fn: Called with key and node; False makes the node a leaf. None enters every node.
      exit_fn: Called with key and node after the children of an entered node.

    Raises:
      ValueError: if a node contains itself.
    """
    _Visit(visit_fn, enter_fn, exit_fn).visit("", obj_to_visit)


class _Visit:
    def __init__(
        self,
        visit_fn: Callable[[str, Any], Any],
        enter_fn: Callable[[str, Any], bool] | None,
        exit_fn: Callable[[str, Any], Any] | None,
    ):
        self._visit_fn, self._enter_fn, self._exit_fn = visit_fn, enter_fn, exit_fn
        self._open: set[int] = set()

    def visit(self, key: str, value: Any) -> None:
        children = _children(key, value)
        if children is None or (self._enter_fn is not None and not self._enter_fn(key, value)):
            self._visit_fn(key, value)
            return
        if id(value) in self._open:
            raise ValueError(
                f"Circular reference: the {type(value).__name__} at {key!r} contains itself."
            )
        self._open.add(id(value))
        for child_key, child in children:
            self.visit(child_key, child)
        self._open.remove(id(value))
        if self._exit_fn is not None:
            self._exit_fn(key, value)


def _children(key: str, value: Any) -> Iterator[tuple[str, Any]] | None:
    """Returns the keys and children of a node; None for a leaf."""
    if isinstance(value, type):
        return None
    if isinstance(value, dict | flax_core.FrozenDict):
        return ((_join(key, str(name)), child) for name, child in value.items())
    if isinstance(value, fdl.Buildable):
        return ((_join(key, name), child) for name, child in _config_items(key, value))
    if hasattr(type(value), "__text_items__"):  # A view that lists its own entries.
        return ((_join(key, name), child) for name, child in value.__text_items__())
    if dataclasses.is_dataclass(value):
        return ((_join(key, name), child) for name, child in _dataclass_items(value))
    if daglish.is_namedtuple_subclass(type(value)):
        return ((f"{key}[{name}]", child) for name, child in value._asdict().items())
    if isinstance(value, list | tuple):
        return _element_items(key, value)
    return None


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _config_items(key: str, config: fdl.Buildable) -> Iterator[tuple[str, Any]]:
    target = fdl.get_callable(config)
    if not key.endswith("_split_dims_mapping"):
        yield "cls", target
    is_module = inspect.isclass(target) and issubclass(target, nn.Module)
    for name, value in fdl.ordered_arguments(config, include_defaults=True).items():
        if is_module and name == "parent" and name not in config.__arguments__:
            continue
        yield str(name), UnsetFactory() if value is _FACTORY else value


def _dataclass_items(value: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(value):
        if isinstance(value, nn.Module) and field.name == "parent":
            continue
        if hasattr(value, field.name):
            yield field.name, getattr(value, field.name)


def _element_items(key: str, value: list | tuple) -> Iterator[tuple[str, Any]] | None:
    """Opens a sequence of configs alone, of old hparams alone, or of (name, old hparams)."""
    if all(isinstance(element, fdl.Buildable) for element in value):
        return ((f"{key}[{index}]", child) for index, child in enumerate(value))
    if all(_is_old_hparams(element) for element in value):
        return ((f"{key}[{index}]", child) for index, child in enumerate(value))
    if all(_is_named_hparams(element) for element in value):
        return ((f"{key}[{name}]", child) for name, child in value)
    return None


def _is_old_hparams(value: Any) -> bool:
    return getattr(type(value), "_is_base_hyperparams", False)


def _is_named_hparams(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and _is_old_hparams(value[1])
    )

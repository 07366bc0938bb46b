"""Experiments by name: each dotted end of a class's path finds it."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, overload

from absl import logging

T = TypeVar("T", bound=type)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered class. `module_spec` is what a reload of its module replaces."""

    cls: type
    tags: tuple[str, ...]
    module_spec: Any


class Registry:
    """Classes by canonical key `module.ClassName`, and by every ending of it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._canonical_of: dict[str, set[str]] = {}

    def add(self, cls: type, tags: Sequence[str], allow_overwrite: bool) -> None:
        key = f"{cls.__module__}.{cls.__name__}"
        module = sys.modules.get(cls.__module__)
        entry = Entry(cls, tuple(tags), getattr(module, "__spec__", None))
        old = self._entries.get(key)
        if old is None:
            for name in secondary_keys(key):
                self._canonical_of.setdefault(name, set()).add(key)
        elif not (allow_overwrite or getattr(cls, "_allow_overwrite", False) or reloaded(old)):
            raise ValueError(
                f"An experiment is already registered as {key!r}. Rename the class, or register it "
                "with allow_overwrite=True."
            )
        self._entries[key] = entry
        logging.debug("Registered experiment %s.", key)

    def find(self, key: str) -> type | None:
        matches = sorted(self._canonical_of.get(key, ()))
        if len(matches) > 1:
            raise ValueError(
                f"Experiment name {key!r} is ambiguous: it matches {', '.join(matches)}. "
                "Use one of these full names."
            )
        return self._entries[matches[0]].cls if matches else None

    def names(self) -> list[str]:
        """All names that `find` knows, the unambiguous and the ambiguous."""
        return sorted(self._canonical_of)

    def entries(self) -> Mapping[str, Entry]:
        return MappingProxyType(self._entries)


def secondary_keys(key: str) -> list[str]:
    """Every dotted ending of `key`, and the form without a part `params`.

    >>> secondary_keys("a.lm.params.cloud.X")[-2:]
    ['X', 'lm.cloud.X']
    """
    parts = key.split(".")
    keys = [".".join(parts[start:]) for start in range(len(parts))]
    if "params" in parts[1:]:
        at = parts.index("params", 1)
        keys.append(".".join([parts[at - 1], *parts[at + 1 :]]))
    return keys


def reloaded(entry: Entry) -> bool:
    """Whether the module of `entry` is being run again by `importlib.reload`."""
    module = sys.modules.get(entry.cls.__module__)
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec is not entry.module_spec


REGISTRY = Registry()


@overload
def register(cls: T, *, tags: Sequence[str] | None = ..., allow_overwrite: bool = ...) -> T: ...


@overload
def register(
    cls: None = None, *, tags: Sequence[str] | None = ..., allow_overwrite: bool = ...
) -> Callable[[T], T]: ...


def register(
    cls: type | None = None, *, tags: Sequence[str] | None = None, allow_overwrite: bool = False
) -> Any:
    """Makes a class known by name; a decorator with or without arguments, or a plain call.

    Args:
      cls: The experiment class.
      tags: Plain strings kept with the class, read by `get_registry_tags`.
      allow_overwrite: Whether the class may replace another of the same module and name.

    Returns:
      The class, or without `cls` a decorator.

    Raises:
      ValueError: if the name is taken.
    """

    def add(cls: T) -> T:
        REGISTRY.add(cls, tags or (), allow_overwrite)
        return cls

    return add if cls is None else add(cls)


def get(key: str) -> type | None:
    """The class registered under `key` or under a name that ends in it, None when unknown.

    Raises:
      ValueError: if several classes match.
    """
    return REGISTRY.find(key)


def get_all() -> dict[str, type]:
    """Every registered class by its full name."""
    return {key: entry.cls for key, entry in REGISTRY.entries().items()}


def get_registry_tags(key: str) -> list[str]:
    """The tags of the class with this full name, [] when unknown."""
    entry = REGISTRY.entries().get(key)
    return list(entry.tags) if entry else []

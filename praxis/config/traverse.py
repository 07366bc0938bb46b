"""Fiddle's traversals, which here also walk into old hyperparameters."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from fiddle import daglish

registry = daglish.NodeTraverserRegistry(use_fallback=True)


@dataclasses.dataclass
class BasicTraversal(daglish.BasicTraversal):
    """Visits a shared object once for each path that leads to it."""

    registry: daglish.NodeTraverserRegistry = registry


@dataclasses.dataclass
class MemoizedTraversal(daglish.MemoizedTraversal):
    """Visits a shared object once."""

    registry: daglish.NodeTraverserRegistry = registry


def iterate(
    value: Any, memoized: bool = True, memoize_internables: bool = True
) -> Iterable[tuple[Any, tuple[daglish.PathElement, ...]]]:
    """Yields each value of a config or nest with its path, the root first.

    Args:
      value: A config or a container of configs. Ordinary dataclass instances are not opened.
      memoized: List an object in two places once.
      memoize_internables: Count equal small constants as one object too.
    """
    return daglish.iterate(
        value, memoized=memoized, memoize_internables=memoize_internables, registry=registry
    )


def register_dataclass(cls: type) -> None:
    """Makes the traversals of this module walk into instances of a dataclass."""
    registry.register_node_traverser(
        cls,
        flatten_fn=_flatten,
        unflatten_fn=lambda values, names: cls(**dict(zip(names, values, strict=True))),
        path_elements_fn=lambda value: tuple(map(daglish.Attr, _flatten(value)[1])),
    )


def _flatten(value: Any) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    names = tuple(f.name for f in dataclasses.fields(value) if hasattr(value, f.name))
    return tuple(getattr(value, name) for name in names), names

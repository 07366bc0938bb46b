"""Equality of config trees: same values, defaults counted, and the same sharing."""

import inspect
from typing import Any

import fiddle as fdl
import numpy as np

from praxis.config import callables

_MISSING = object()


def equal_trees(left: Any, right: Any) -> bool:
    """Returns whether two configs would build equal objects with the same sharing among them.

    An unset argument equals its default. Each pair of nodes is compared once, so the time is
    linear in the size of the trees.
    """
    return _Comparison().equal(left, right)


class _Comparison:
    def __init__(self) -> None:
        self._right_of: dict[int, int] = {}
        self._left_of: dict[int, int] = {}

    def equal(self, left: Any, right: Any) -> bool:
        if not isinstance(left, fdl.Buildable | list | dict | tuple):
            return _equal_leaves(left, right)
        if type(left) is not type(right):
            return False
        if not isinstance(left, tuple):
            known = self._right_of.get(id(left)), self._left_of.get(id(right))
            if known != (None, None):
                return known == (id(right), id(left))
            self._right_of[id(left)], self._left_of[id(right)] = id(right), id(left)
        if isinstance(left, fdl.Buildable):
            return self._equal_configs(left, right)
        if isinstance(left, dict):
            return left.keys() == right.keys() and all(
                self.equal(value, right[key]) for key, value in left.items()
            )
        return len(left) == len(right) and all(map(self.equal, left, right))

    def _equal_configs(self, left: Any, right: Any) -> bool:
        target = fdl.get_callable(left)
        if target != fdl.get_callable(right):
            return False
        parameters = callables.callable_facts(target).parameters
        for key in {**left.__arguments__, **right.__arguments__}:
            default = parameters[key].default if key in parameters else _MISSING
            if default is inspect.Parameter.empty:
                default = _MISSING
            values = [side.__arguments__.get(key, default) for side in (left, right)]
            if not self.equal(*values):
                return False
        return True


def _equal_leaves(left: Any, right: Any) -> bool:
    if left is right:
        return True
    try:
        return bool(left == right)
    except ValueError:  # Arrays compare element by element.
        return bool(np.array_equal(left, right))

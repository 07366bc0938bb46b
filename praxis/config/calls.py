"""Values of a config as the call or the import that makes them again."""

import dataclasses
import enum
import functools
import importlib
import math
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from praxis.config.callables import short_name

# (function, arguments, arguments by name)
Recipe = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Modules under whose names users know what these libraries define in private ones.
_PUBLIC_MODULES = (
    "jax.numpy",
    "jax.nn",
    "jax.nn.initializers",
    "jax.lax",
    "jax",
    "jax.sharding",
    "numpy",
    "fiddle",
)


def as_call(value: Any) -> Recipe | None:
    """Returns a function and its arguments that make an equal value; None for other values.

    Example:
      >>> as_call(range(3))
      (<class 'range'>, (0, 3, 1), {})
    """
    if isinstance(value, type):  # It has the attributes of its instances, too.
        return None
    if dataclasses.is_dataclass(value):
        fields = (field for field in dataclasses.fields(value) if field.init)
        return type(value), (), {field.name: getattr(value, field.name) for field in fields}
    for kinds, recipe in _RECIPES:
        if isinstance(value, kinds):
            return recipe(value)
    return None


def import_name(value: Any) -> tuple[str, str] | None:
    """Returns the module and the name, dotted in a class, under which a value is found; or None.

    Example:
      >>> import jax
      >>> import_name(jax.nn.relu)
      ('jax.nn', 'relu')
    """
    if isinstance(value, enum.Enum):
        found = _own_name(type(value))
        return None if found is None else (found[0], f"{found[1]}.{value.name}")
    if isinstance(value, types.ModuleType):
        return value.__name__, ""
    if isinstance(value, types.MethodType) and isinstance(value.__self__, type):
        found = _own_name(value.__self__)
        return None if found is None else (found[0], f"{found[1]}.{value.__name__}")
    return _own_name(value)


def resolve_import(module: str, name: str) -> Any:
    """Returns the object of that name in a module; the module itself for an empty name.

    Raises:
      ValueError: if there is none.
    """
    try:
        found: Any = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"There is no {name!r} in the module {module!r}: {error}.") from error
    return found


def make_array(function: Callable[..., Any], values: Any, dtype: Any, shape: Any) -> Any:
    """Returns `function(values, dtype)` in a shape, which nested lists cannot tell if it is empty.

    Args:
      function: `np.array` or `jnp.array`.
      values: The elements in row-major order.
      dtype: Type of the elements.
      shape: Shape of the array.
    """
    return function(values, dtype).reshape(shape)


def is_maker(function: Any) -> bool:
    """Returns whether a function is of those that `as_call` gives, which do no more than make."""
    if isinstance(function, type):
        makers = (np.dtype, np.generic, jax.sharding.PartitionSpec, functools.partial, complex)
        plain = issubclass(function, (*makers, bytes, range, set, frozenset)) or function is slice
        return plain or dataclasses.is_dataclass(function)
    return function in (np.array, jnp.array, make_array)


def unwritable(place: str, value: Any) -> ValueError:
    """Returns the error for a value that has neither a call nor a name."""
    return ValueError(
        f"{place} holds {short_name(value) if callable(value) else repr(value)}, a "
        f"{type(value).__name__}, which cannot be written: no module has it under that name. Use "
        "a function or class at the top level of a module, or a plain value."
    )


def _own_name(value: Any) -> tuple[str, str] | None:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    own = getattr(value, "__module__", None)
    if not isinstance(name, str) or not isinstance(own, str):
        return None
    candidates = [own]
    if own.startswith(("jax.", "numpy.", "fiddle.")):
        candidates = [*_PUBLIC_MODULES, own]
    for module in candidates:
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value:
            return module, name
    return None


def _array(value: Any) -> Recipe:
    function = jnp.array if isinstance(value, jax.Array) else np.array
    plain = np.asarray(value)
    if math.prod(plain.shape):
        return function, (plain.tolist(), plain.dtype), {}
    return make_array, (function, [], plain.dtype, plain.shape), {}


_RECIPES: tuple[tuple[Any, Callable[[Any], Recipe]], ...] = (
    (np.dtype, lambda value: (np.dtype, (value.name,), {})),
    (np.generic, lambda value: (type(value), (value.item(),), {})),
    ((np.ndarray, jax.Array), _array),
    (jax.sharding.PartitionSpec, lambda value: (type(value), tuple(value), {})),
    (
        functools.partial,
        lambda value: (functools.partial, (value.func, *value.args), dict(value.keywords)),
    ),
    (complex, lambda value: (complex, (value.real, value.imag), {})),
    (bytes, lambda value: (bytes, (list(value),), {})),
    ((range, slice), lambda value: (type(value), (value.start, value.stop, value.step), {})),
    ((set, frozenset), lambda value: (type(value), (sorted(value, key=repr),), {})),
)

"""Values given as text on the command line, read as what their field holds."""

import ast
import collections.abc
import difflib
import enum
import importlib
import types
import typing
from typing import Any

import fiddle as fdl
import jax.numpy as jnp
from jax.typing import DTypeLike

from praxis import pax_fiddle

_WORDS = {"true": True, "false": False, "none": None, "null": None}


class _NoFit(Exception):
    """The text is not a value of the type tried."""


def parse_value(text: str, *, old: Any, hint: Any = None, strict: bool = True) -> Any:
    """Reads a text as a value for a field.

    A number, a list and so on is a Python literal; a text needs no quotes. `true`, `false` and
    `none` may be in lower case, members of enums are named, dtypes too (`bfloat16`), classes by
    their full dotted name. A class given to a field that holds a config becomes a config of it.

    Args:
      text: What the user typed.
      old: Value of the field now; says what belongs there where the annotation does not.
      hint: Annotation of the field; None if there is none.
      strict: Whether a literal of another type than expected is refused too.

    Raises:
      ValueError: saying what the field takes.

    Example:
      >>> parse_value("1e3", old=10), parse_value("2", old=0.5), parse_value("no", old="yes")
      (1000, 2.0, 'no')
    """
    if _is_dtype(old) or _takes_dtype(hint):
        return None if text.lower() == "none" else _dtype(text)
    if isinstance(old, fdl.Buildable):
        return _config(text, old)
    literal = _literal(text)
    kinds = _kinds(hint) or (() if old is None else (type(old),))
    if literal is None and text.lower() in _WORDS and (old is None or types.NoneType in kinds):
        return None
    kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    if not kinds:
        return _class_or(text, literal) if old is None else literal
    for exact in (True, False):
        for kind in kinds:
            try:
                return _as_kind(text, literal, kind, old=old, exact=exact)
            except _NoFit:
                continue
    if not strict and literal is not text:
        return literal
    raise ValueError(f"{text!r} is not {' or '.join(map(_described, kinds))}")


def _literal(text: str) -> Any:
    """Returns the Python literal that the text is, else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Types that an annotation allows; empty if it says nothing that can be checked here."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [_kinds(part) for part in typing.get_args(hint)]
        return () if not all(parts) else tuple(kind for part in parts for kind in part)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return tuple({type(value) for value in typing.get_args(hint)})
    kind = origin or hint
    known = (bool, int, float, str, list, tuple, dict, types.NoneType)
    if kind in known or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return (kind,)
    if kind in (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection):
        return (list,)
    return (dict,) if kind is collections.abc.Mapping else ()


def _as_kind(text: str, literal: Any, kind: type, *, old: Any, exact: bool) -> Any:
    if issubclass(kind, enum.Enum):
        return _member(text, kind)
    if type(literal) is kind:
        return literal
    if exact:
        raise _NoFit
    if kind is int and isinstance(literal, float) and literal.is_integer():
        return int(literal)
    if kind is float and type(literal) is int:
        return float(literal)
    if kind is bool and literal in (0, 1):
        return bool(literal)
    if kind is str and not isinstance(literal, str):
        return text
    if kind in (list, tuple) and isinstance(literal, list | tuple):
        return type(old)(literal) if isinstance(old, list | tuple) else list(literal)
    if kind in (bool, int, float, str, list, tuple, dict):
        raise _NoFit
    return _class_or(text, literal)


def _member(text: str, kind: type[enum.Enum]) -> enum.Enum:
    name = text.rpartition(".")[2]
    by_name = {member.name.lower(): member for member in kind}
    if name.lower() in by_name:
        return by_name[name.lower()]
    by_value = {str(member.value).lower(): member for member in kind}
    if text.lower() in by_value:
        return by_value[text.lower()]
    raise _NoFit


def _is_dtype(value: Any) -> bool:
    """Whether a field holds a dtype, in one of the forms in which configs write it."""
    if isinstance(value, jnp.dtype):
        return True
    return getattr(jnp, getattr(value, "__name__", ""), None) is value and hasattr(value, "dtype")


def _takes_dtype(hint: Any) -> bool:
    parts = set(typing.get_args(DTypeLike))
    return bool(parts) and parts <= set(typing.get_args(hint))


def _dtype(text: str) -> Any:
    name = text.rpartition(".")[2]
    known = [one for one in dir(jnp) if _is_dtype(getattr(jnp, one))]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        question = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{text!r} is not a dtype such as 'float32' or 'bfloat16'{question}")
    return getattr(jnp, name)


def _config(text: str, old: fdl.Buildable) -> Any:
    if text.lower() == "none":
        return None
    name = fdl.get_callable(old).__name__
    found = _class_or(text, None)
    if not callable(found):
        raise ValueError(
            f"it holds a config of {name}: set one of its fields, as in .name=value, or give a "
            "class by its full name, as in my_package.my_module.MyClass"
        )
    return pax_fiddle.Config(found)


def _class_or(text: str, other: Any) -> Any:
    """Returns what a dotted name stands for, else `other`."""
    module, dot, name = text.rpartition(".")
    if not dot or not all(part.isidentifier() for part in text.split(".")):
        return other
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{text!r} cannot be imported: {error}") from error


def _described(kind: type) -> str:
    if issubclass(kind, enum.Enum):
        return f"one of {', '.join(member.name for member in kind)}"
    names = {int: "an int", float: "a float", bool: "true or false", str: "a text"}
    return names.get(kind, f"a {kind.__name__}")

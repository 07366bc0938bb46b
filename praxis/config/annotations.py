"""Which parameters of a callable hold templates, read from its type annotations."""

import collections.abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import fiddle as fdl

# A template may stand alone or inside these; `Annotated` is removed before.
_CONTAINERS = (list, tuple, dict, collections.abc.Mapping, collections.abc.Sequence)
_UNIONS = (typing.Union, types.UnionType)
_QUALIFIERS = (typing.ClassVar, typing.Final, typing.Required, typing.NotRequired)


def resolve_annotations(target: Any) -> dict[str, Any]:
    """Returns the annotations of the parameters of `target`, resolved one by one where needed.

    Args:
      target: A dataclass, NamedTuple, plain class (its constructor is read) or function.

    Returns:
      Annotation by parameter name, `Annotated` kept. A name that cannot be resolved, for example
      one imported under `TYPE_CHECKING` only, leaves its own annotation a string and no other.
    """
    owner = _annotation_owner(target)
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception:
        return _resolve_each(owner)


def is_template_annotation(annotation: Any, *, field: str, owner: str) -> bool:
    """Returns whether a parameter annotated so holds a config that is not built with its owner.

    Args:
      annotation: The resolved annotation.
      field: Name of the parameter, for the error.
      owner: Name of the callable, for the error.

    Raises:
      ValueError: if a config type sits in a container that cannot hold templates, as `set[Config]`.
      TypeError: if the annotation is a string that could not be resolved.
    """
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        raise TypeError(
            f"{owner}.{field}: the annotation {annotation!r} cannot be resolved, so it is unknown "
            "whether the field holds a template. Import the name at run time, not only under "
            "TYPE_CHECKING, and define it at module level."
        )
    if isinstance(annotation, dataclasses.InitVar):
        return is_template_annotation(annotation.type, field=field, owner=owner)
    if inspect.isclass(annotation) and typing.get_origin(annotation) is None:
        return issubclass(annotation, fdl.Buildable)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin is typing.Literal:
        return False
    if inspect.isclass(origin) and issubclass(origin, fdl.Buildable):
        return True
    if origin is typing.Annotated:
        return is_template_annotation(arguments[0], field=field, owner=owner)
    inside = [
        is_template_annotation(argument, field=field, owner=owner)
        for argument in _flat(arguments)
        if argument is not Ellipsis
    ]
    if any(inside) and origin not in (*_CONTAINERS, *_UNIONS, *_QUALIFIERS):
        raise ValueError(
            f"{owner}.{field}: a template cannot be declared as {annotation}. Expected a config "
            "type alone or inside list, tuple, dict, Mapping, Sequence or a union."
        )
    return any(inside)


def _annotation_owner(target: Any) -> Any:
    """Returns the object whose `__annotations__` describe the parameters of `target`."""
    if (origin := typing.get_origin(target)) is not None:
        target = origin
    if hasattr(target, "func") and not inspect.isclass(target):  # functools.partial, auto_config
        return _annotation_owner(target.func)
    if not inspect.isclass(target):
        plain = inspect.isroutine(target) or not callable(target)
        return target if plain else type(target).__call__
    if dataclasses.is_dataclass(target) or hasattr(target, "_fields"):
        return target
    for base in inspect.getmro(target):
        for name in ("__init__", "__new__"):
            if name in vars(base):
                return vars(base)[name]
    return target


def _resolve_each(owner: Any) -> dict[str, Any]:
    """Evaluates every annotation alone; one that fails stays as written."""
    hints: dict[str, Any] = {}
    sources = reversed(inspect.getmro(owner)) if inspect.isclass(owner) else [owner]
    for source in sources:
        written = inspect.get_annotations(source) if _is_annotated(source) else {}
        module = sys.modules.get(getattr(source, "__module__", None) or "")
        names: Mapping[str, Any] = getattr(source, "__globals__", None) or vars(module or types)
        own = dict(vars(source)) if inspect.isclass(source) else {}
        for field, annotation in written.items():
            hints[field] = _resolve_one(annotation, dict(names), own)
    return hints


def _is_annotated(source: Any) -> bool:
    return inspect.isclass(source) or inspect.isfunction(source) or inspect.ismethod(source)


def _resolve_one(annotation: Any, names: dict[str, Any], own: dict[str, Any]) -> Any:
    """Resolves through `get_type_hints`, which also opens forward references inside generics."""
    holder = types.SimpleNamespace(__annotations__={"field": annotation})
    try:
        return typing.get_type_hints(holder, names, own, include_extras=True)["field"]
    except Exception:
        return annotation


def _flat(arguments: tuple[Any, ...]) -> list[Any]:
    """Opens the parameter list of `Callable[[A, B], R]`."""
    flat: list[Any] = []
    for argument in arguments:
        flat.extend(argument if isinstance(argument, list) else [argument])
    return flat

"""Changes one field of a config, named by its path."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl

from paxml.experiment.values import parse_value
from praxis.config import callables

_INDEX = re.compile(r"\[(\d+)\]")


def override(config: Any, path: str, text: str) -> Any:
    """Sets a field of a config.

    Args:
      config: A config, with any configs, lists and mappings inside. It is changed.
      path: Such as `model.lm_tpl.model_dims` or `train.learner.optimizer.learning_rate`; entries of
        lists are numbers, `layers.0.name` or `layers[0].name`.
      text: The value, see `parse_value`.

    Returns:
      The config.

    Raises:
      ValueError: naming the part of the path that does not exist, with what is close to it, or
        saying what the field takes.
    """
    parts = [part for part in _INDEX.sub(r".\1", path).split(".") if part]
    if not parts:
        raise ValueError("the path is empty.")
    return _with(config, parts, text, done="")


def field_names(node: Any) -> list[str]:
    """Returns the names of what is directly inside a config, a list or a mapping."""
    if isinstance(node, fdl.Buildable):
        return list(callables.callable_facts(fdl.get_callable(node)).names)
    if isinstance(node, Mapping):
        return [str(key) for key in node]
    if isinstance(node, list | tuple):
        return [str(index) for index in range(len(node))]
    if dataclasses.is_dataclass(node):
        return [field.name for field in dataclasses.fields(node)]
    return []


def _with(node: Any, parts: Sequence[str], text: str, *, done: str) -> Any:
    """Returns the node with another value at the path; a new one where it cannot be changed."""
    name, rest = parts[0], parts[1:]
    path = f"{done}.{name}" if done else name
    _check_name(node, name, done)
    old = _get(node, name)
    if rest:
        new = _with(old, rest, text, done=path)
    else:
        try:
            new = parse_value(text, old=old, hint=_hint(node, name))
        except ValueError as error:
            raise ValueError(f"{path!r} is {_short(old)}, and {error}.") from error
    return _put(node, name, new)


def _check_name(node: Any, name: str, done: str) -> None:
    known = field_names(node)
    what = f"{done!r}, {_short(node)}," if done else _short(node)
    if not known:
        raise ValueError(f"{done!r} is {_short(node)} and has no field {name!r}.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"It has {known}."
        raise ValueError(f"{what} has no field {name!r}. {hint}")


def _get(node: Any, name: str) -> Any:
    if isinstance(node, Mapping):
        return node[_key(node, name)]
    if isinstance(node, list | tuple):
        return node[int(name)]
    try:
        return getattr(node, name)
    except (AttributeError, ValueError):  # required, or made by a factory when it is built
        return None


def _put(node: Any, name: str, value: Any) -> Any:
    if isinstance(node, Mapping):
        make: Any = type(node)
        return make({**node, _key(node, name): value})
    if isinstance(node, list | tuple):
        return type(node)([*node[: int(name)], value, *node[int(name) + 1 :]])
    if isinstance(node, fdl.Buildable):
        setattr(node, name, value)
        return node
    return dataclasses.replace(node, **{name: value})


def _key(node: Mapping[Any, Any], name: str) -> Any:
    return next(key for key in node if str(key) == name)


def _hint(node: Any, name: str) -> Any:
    kind = fdl.get_callable(node) if isinstance(node, fdl.Buildable) else type(node)
    is_record = isinstance(node, fdl.Buildable) or dataclasses.is_dataclass(node)
    return callables.callable_facts(kind).hints.get(name) if is_record else None


def _short(value: Any) -> str:
    if isinstance(value, fdl.Buildable):
        return f"a config of {fdl.get_callable(value).__name__}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"

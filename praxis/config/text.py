"""Configs and other nested structures as text, one line a value."""

import abc
import enum
import inspect
import sys
from typing import Any

import fiddle as fdl
import numpy as np

from praxis.config.visit import UnsetFactory, visit_nested_struct


class StrOverride(abc.ABC):  # noqa: B024 - a mark, nothing to implement
    """Base of classes whose values are written as their `str` in the text of a config."""


def nested_struct_to_text(
    obj_to_visit: Any, include_types: bool = False, separator: str = ":"
) -> Any:
    """Returns a line `path : value` for each leaf, sorted by path.

    Args:
      obj_to_visit: A config, container or dataclass instance; see `visit_nested_struct`.
      include_types: Also return the type of each leaf.
      separator: What stands between path and value.

    Returns:
      The text, each line ended; with `include_types`, the text and {path: name of the type}.

    Raises:
      ValueError: if the structure contains itself.
    """
    leaves: dict[str, Any] = {}
    visit_nested_struct(obj_to_visit, leaves.__setitem__)
    lines = [f"{path} {separator} {leaf_text(leaf)}\n" for path, leaf in sorted_items(leaves)]
    text = "".join(lines)
    if include_types:
        return text, {path: type(leaf).__name__ for path, leaf in leaves.items()}
    return text


def diff_text(before: Any, after: Any) -> str:
    """Returns the lines of `nested_struct_to_text` in which two configs differ.

    Args:
      before: A config or other structure.
      after: Another one.

    Returns:
      Lines that start with `- ` (only before) or `+ ` (only after); '' for equal texts.
    """
    return "".join(
        f"{sign} {path} : {text}\n"
        for path, *texts in differences(before, after)
        for sign, text in zip("-+", texts, strict=True)
        if text is not None
    )


def differences(before: Any, after: Any) -> list[tuple[str, str | None, str | None]]:
    """Returns path, text before and text after of each leaf that differs, sorted by path.

    Args:
      before: A config or other structure.
      after: Another one.

    Returns:
      A text is None where that side has no such leaf.
    """
    sides: list[dict[str, Any]] = [{}, {}]
    for side, leaves in zip((before, after), sides, strict=True):
        visit_nested_struct(side, leaves.__setitem__)
    old, new = ({path: leaf_text(leaf) for path, leaf in leaves.items()} for leaves in sides)
    return [
        (path, old.get(path), new.get(path))
        for path, _ in sorted_items({**old, **new})
        if old.get(path) != new.get(path)
    ]


def sorted_items(leaves: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns path and leaf in plain string order of the paths."""
    return sorted(leaves.items(), key=lambda item: item[0])


def leaf_text(value: Any) -> str:
    """Returns the text of one value, the same in every process."""
    if isinstance(value, StrOverride | UnsetFactory):
        return str(value)
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return _quoted(value)
    if isinstance(value, bool | int | float | enum.Enum):
        return str(value)
    if value is None:
        return "NoneType"
    if isinstance(value, list | tuple):
        return repr(_readable(value))
    if isinstance(value, type):
        return f"type/{value.__module__}/{value.__qualname__}"
    if inspect.isroutine(value):
        return f"callable/{value.__module__}/{value.__qualname__}"
    if isinstance(value, np.ndarray):
        return np.array2string(value, separator=", ")
    return _foreign_text(value) or type(value).__name__


def _quoted(text: str) -> str:
    """Quotes with whichever quote needs fewer escapes; line ends stay as they are."""
    quote = '"' if text.count("'") > text.count('"') else "'"
    escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return f"{quote}{escaped}{quote}"


def _readable(value: Any) -> Any:
    """Replaces what has no stable `repr` inside a list that is written in one line."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        elements = [_readable(element) for element in value]
        return elements if isinstance(value, list) else tuple(elements)
    if isinstance(value, dict):
        return {key: _readable(element) for key, element in value.items()}
    return repr(value) if isinstance(value, fdl.Buildable) else leaf_text(value)


def _foreign_text(value: Any) -> str | None:
    """Writes values of libraries that are not imported here, if the user has loaded them."""
    protobuf = sys.modules.get("google.protobuf.message")
    if protobuf is not None and isinstance(value, protobuf.Message):
        text_format = sys.modules.get("google.protobuf.text_format")
        line = text_format.MessageToString(value, as_one_line=True) if text_format else str(value)
        return f"proto/{type(value).__module__}/{type(value).__qualname__}/{line}"
    if type(value).__module__.startswith("tensorflow") and type(value).__name__ == "DType":
        return value.name
    return None

"""The settings of an experiment class as text, and back."""

import ast
import inspect
import re
from typing import Any

from absl import logging

from paxml.experiment.base import BaseExperiment

_INDENT = "    "
# Lines of a value after its first; the text between them and the margin belongs to the value.
_CONTINUED = "\n" + _INDENT + "| "
_SETTING = re.compile(r"\s*([A-Za-z_]\w*): ?(.*)")


def get_cls_vars_summary(cls: type) -> str:
    """The class variables of `cls`, base classes first.

    Returns:
      For each class of the inheritance chain that defines a variable: a line `module.Name:`, a
      line `    name: value` for each, an empty line. A variable stands once, under the most
      derived class that sets it. Further lines of a long value start with `    | `.
    """
    blocks: list[str] = []
    seen: set[str] = set(vars(BaseExperiment))
    for owner in cls.__mro__:  # most derived first, so that it wins
        names = [name for name, value in vars(owner).items() if _is_setting(name, value)]
        lines = [
            f"{_INDENT}{name}: {repr(vars(owner)[name]).replace(chr(10), _CONTINUED)}"
            for name in names
            if name not in seen
        ]
        seen.update(names)
        if lines:
            blocks.append("\n".join([f"{owner.__module__}.{owner.__qualname__}:", *lines, ""]))
    return "\n".join(reversed(blocks))


def parse(cls_vars_summary: str) -> dict[str, Any]:
    r"""Reads the text of `get_cls_vars_summary`.

    Values are read as Python literals; the text of any other value stays text. A line that is
    neither class, setting nor a further line of one is left out, with a warning in the log.

    Returns:
      The values by name.

    Example:
      >>> parse("my_module.Mine:\n    STEPS: 20\n    NAME: 'mine'\n")
      {'STEPS': 20, 'NAME': 'mine'}
    """
    texts: dict[str, str] = {}
    name = None
    for line in cls_vars_summary.split("\n"):
        is_class = line.endswith(":") and not line.startswith(_INDENT)
        if not line.strip() or is_class:
            name = None
        elif name and line.startswith(_CONTINUED[1:]):
            texts[name] += "\n" + line.removeprefix(_CONTINUED[1:])
        elif found := _SETTING.fullmatch(line):
            name = found[1]
            texts[name] = found[2]
        else:
            logging.warning("Class variables of an experiment: line %r is not understood.", line)
    return {name: _value(text) for name, text in texts.items()}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _is_setting(name: str, value: object) -> bool:
    hidden = name.startswith("__") or name == "_abc_impl"
    wrapped = isinstance(value, property | classmethod | staticmethod)
    return not (hidden or wrapped or callable(value) or inspect.isdatadescriptor(value))

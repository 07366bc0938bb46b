"""The settings of an experiment class as text."""

import inspect

from paxml.experiment.base import BaseExperiment


def get_cls_vars_summary(cls: type) -> str:
    """The class variables of `cls`, base classes first.

    Returns:
      For each class of the inheritance chain that defines a variable: a line `module.Name:`, a
      line `    name: value` for each, an empty line. A variable stands once, under the most
      derived class that sets it.
    """
    blocks: list[str] = []
    seen: set[str] = set(vars(BaseExperiment))
    for owner in cls.__mro__:  # most derived first, so that it wins
        names = [name for name, value in vars(owner).items() if _is_setting(name, value)]
        lines = [f"    {name}: {vars(owner)[name]!r}" for name in names if name not in seen]
        seen.update(names)
        if lines:
            blocks.append("\n".join([f"{owner.__module__}.{owner.__qualname__}:", *lines, ""]))
    return "\n".join(reversed(blocks))


def _is_setting(name: str, value: object) -> bool:
    hidden = name.startswith("__") or name == "_abc_impl"
    wrapped = isinstance(value, property | classmethod | staticmethod)
    return not (hidden or wrapped or callable(value) or inspect.isdatadescriptor(value))

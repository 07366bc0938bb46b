"""Moves the fields of a config to another class, or from another config."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any

import fiddle as fdl

from praxis.config import callables


def update_callable(
    buildable: Any, new_callable: Callable[..., Any], drop_invalid_args: bool = False
) -> None:
    """Makes a config build another class or function, and keeps its arguments.

    Tags of the new fields are added, and so are sub-configs for those of its fields that are not
    set. Arguments that are set stay, also None and the sub-configs of the old class.

    Args:
      buildable: A Pax config; changed in place.
      new_callable: The new class or function.
      drop_invalid_args: Delete the arguments that `new_callable` does not take.

    Raises:
      TypeError: if there are such arguments and they are not to be dropped.
    """
    facts = callables.callable_facts(new_callable)
    invalid = [name for name in buildable.__arguments__ if not facts.accepts(str(name))]
    if invalid and not drop_invalid_args:
        raise TypeError(
            f"{facts.name} does not take the arguments {invalid} that this config of "
            f"{callables.short_name(fdl.get_callable(buildable))} has set. Delete them from the "
            "config, or call update_callable with drop_invalid_args=True."
        )
    fdl.update_callable(buildable, new_callable, drop_invalid_args)
    if hasattr(buildable, "_fill_in"):
        buildable._fill_in(facts)


def copy_fields_from(target: Any, source: Any, missing_fields_in_self: Collection[str]) -> None:
    """Sets the fields of a config to independent copies of those of another.

    Every parameter of the source but `parent` is copied: a value that is set, else its default.
    Where both classes make the default with the same factory, the target's value is cleared.
    Fields that only the target has are left alone. Tags are not copied.

    Args:
      target: The config to change.
      source: A config of the same or another class.
      missing_fields_in_self: Fields of the source that the target may lack.

    Raises:
      TypeError: if the source is no Pax config.
      ValueError: if the target lacks a field, if a required field of the source is not set, or if
        the two classes make an unset field with different factories.
    """
    if not isinstance(source, type(target)):
        raise TypeError(
            f"Fields can be copied from a {type(target).__name__}, got {type(source).__name__}."
        )
    theirs = callables.callable_facts(fdl.get_callable(source))
    ours = callables.callable_facts(fdl.get_callable(target))
    copied = copy.deepcopy(source)
    for name in [*theirs.names, *(set(copied.__arguments__) - set(theirs.names))]:
        if name == "parent" or name in missing_fields_in_self:
            continue
        if not ours.accepts(name):
            raise ValueError(
                f"{theirs.name}.{name} cannot be copied: {ours.wrong_name(name)} "
                "List it in missing_fields_in_self to leave it out."
            )
        if name in copied.__arguments__:
            setattr(target, name, copied.__arguments__[name])
        elif name in theirs.factories:
            if _factory(source, name) != _factory(target, name):
                raise ValueError(
                    f"{theirs.name}.{name} is not set, and {ours.name}.{name} has another default "
                    "factory. Set the field in the source."
                )
            target.__arguments__.pop(name, None)
        elif theirs.parameters[name].default is inspect.Parameter.empty:
            raise ValueError(f"{theirs.name}.{name} is required and has not been set.")
        else:
            setattr(target, name, theirs.parameters[name].default)


def _factory(config: Any, name: str) -> Any:
    target = fdl.get_callable(config)
    own = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
    return next((field.default_factory for field in own if field.name == name), None)

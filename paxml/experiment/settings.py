"""Settings of an experiment given on the command line."""

import ast
import difflib
from collections.abc import Sequence
from typing import Any


def with_settings(experiment: type, settings: Sequence[str]) -> type:
    """Returns a subclass of an experiment with other class attributes.

    Args:
      experiment: Class of the experiment.
      settings: Texts such as `NUM_STEPS=20`. Values are Python literals; anything else is a string.

    Raises:
      ValueError: for a text without `=`, or a name that is no setting of the experiment.

    Example:
      >>> class Tiny:
      ...     NUM_STEPS = 1000
      >>> with_settings(Tiny, ["NUM_STEPS=20"]).NUM_STEPS
      20
    """
    values = dict(_parsed(experiment, text) for text in settings)
    if not values:
        return experiment
    own = {"__module__": experiment.__module__, "__doc__": experiment.__doc__}
    return type(experiment.__name__, (experiment,), own | values)


def setting_names(experiment: type) -> list[str]:
    """Returns the names of an experiment's settings: class attributes in capitals."""
    return sorted(name for name in dir(experiment) if name.isupper() and not name.startswith("_"))


def _parsed(experiment: type, text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    known = setting_names(experiment)
    if not separator:
        raise ValueError(f"--set={text}: expected NAME=VALUE, with a name of {known}.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        question = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"--set={text}: {experiment.__name__} has no setting {name!r}.{question} "
            f"It has {known}."
        )
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value

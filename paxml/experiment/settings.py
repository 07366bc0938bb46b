"""Settings of an experiment given on the command line."""

import difflib
from collections.abc import Sequence
from typing import Any

from paxml.experiment.override import override
from paxml.experiment.values import parse_value

_TASK = "task."


def with_settings(experiment: type, settings: Sequence[str]) -> type:
    """Returns a subclass of an experiment with other class attributes, or another task.

    Args:
      experiment: Class of the experiment.
      settings: Texts such as `NUM_STEPS=20`, a class attribute in capitals, or
        `train.learner.optimizer.learning_rate=0.1`, the path of a field in the config that `task()`
        returns; `task.` may stand before it. Values are Python literals, see `parse_value`.

    Raises:
      ValueError: for a text without `=`, a name that is no setting of the experiment and no field
        of its task, or a value that does not fit.

    Example:
      >>> class Tiny:
      ...     NUM_STEPS = 1000
      >>> with_settings(Tiny, ["NUM_STEPS=20"]).NUM_STEPS
      20
    """
    if not settings:
        return experiment
    own: dict[str, Any] = {"__module__": experiment.__module__, "__doc__": experiment.__doc__}
    own["__qualname__"] = experiment.__qualname__
    paths: list[tuple[str, str]] = []
    for text in settings:
        name, value = _split(experiment, text)
        if name in setting_names(experiment):
            own[name] = _class_value(experiment, name, value)
        else:
            paths.append((name, value))
    changed = type(experiment.__name__, (experiment,), own)
    return _with_task_fields(changed, paths) if paths else changed


def setting_names(experiment: type) -> list[str]:
    """Returns the names of an experiment's settings: class attributes in capitals."""
    return sorted(name for name in dir(experiment) if name.isupper() and not name.startswith("_"))


def _with_task_fields(experiment: Any, paths: Sequence[tuple[str, str]]) -> type:
    """Returns a subclass with other values in the config of the task."""

    def task(self: Any) -> Any:
        config = experiment.task(self).clone()
        for path, value in paths:
            try:
                config = override(config, path.removeprefix(_TASK), value)
            except ValueError as error:
                raise ValueError(
                    f"--set={path}={value}: {error}{_other_names(experiment, path)}"
                ) from error
        return config

    own = {
        "__module__": experiment.__module__,
        "__qualname__": experiment.__qualname__,
        "__doc__": experiment.__doc__,
        "task": task,
    }
    changed = type(experiment.__name__, (experiment,), own)
    changed().task()  # so that a wrong path is known before anything starts
    return changed


def _split(experiment: type, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    name = name.strip()
    if not separator or not name:
        raise ValueError(
            f"--set={text}: expected NAME=VALUE, with a name of {setting_names(experiment)}, or "
            "the path of a field of the task, as in train.num_train_steps=20."
        )
    if name.isupper() and "." not in name and name not in setting_names(experiment):
        raise ValueError(
            f"--set={text}: {experiment.__name__} has no setting {name!r}."
            f"{_other_names(experiment, name)}"
        )
    return name, value


def _class_value(experiment: type, name: str, value: str) -> Any:
    try:
        # An attribute has no type of its own; another kind of literal may be meant.
        return parse_value(value, old=getattr(experiment, name), strict=False)
    except ValueError as error:
        raise ValueError(
            f"--set={name}={value}: {experiment.__name__}.{name} is "
            f"{getattr(experiment, name)!r}, and {error}."
        ) from error


def _other_names(experiment: type, name: str) -> str:
    """A sentence with the settings that a name without a dot may have meant."""
    known = setting_names(experiment)
    if "." in name or not known:
        return ""
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.4)
    question = f" Did you mean {near[0]!r}?" if near else ""
    return f"{question} It has the settings {known}."

"""What is worth comparing between runs: the settings of an experiment as plain values."""

import ast
from typing import Any

import fiddle as fdl

from paxml.experiment.base import BaseExperiment
from paxml.experiment.settings import setting_names
from praxis.inspection.configs import config_table

Plain = str | int | float | bool


def hparams_of(experiment: BaseExperiment, task_config: fdl.Buildable) -> dict[str, Plain]:
    """Returns the settings of an experiment, and the fields of its task that are not at default.

    Args:
      experiment: The experiment; its class attributes in capitals are its settings.
      task_config: The config of its task as it is run.
    """
    found = {name: getattr(experiment, name) for name in setting_names(type(experiment))}
    for mark, path, text, _ in config_table(task_config, changed_only=True).rows:
        if mark and not path.endswith(".cls") and path != "cls":
            found[path] = _literal(text)
    return {name: value for name, value in found.items() if isinstance(value, Plain)}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text

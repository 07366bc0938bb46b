"""Experiments given by Fiddle's own flags."""

from collections.abc import Sequence
from typing import Any

import fiddle as fdl

from paxml.experiment.base import BaseExperiment
from paxml.experiment.override import override
from praxis import pax_fiddle


def experiment_of(config: Any, settings: Sequence[str] = ()) -> BaseExperiment:
    """Builds the experiment that a config describes.

    Args:
      config: Config of an experiment, usually a `ParameterizedExperiment`.
      settings: Texts such as `task.train.num_train_steps=20`, fields of the config by path.

    Raises:
      ValueError: for a setting that is wrong, or a config of something else.
    """
    if not isinstance(config, fdl.Buildable):
        raise ValueError(f"--fdl gave a {type(config).__name__}, expected a config.")
    for text in settings:
        path, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"--set={text}: expected PATH=VALUE.")
        try:
            config = override(config, path.strip(), value)
        except ValueError as error:
            raise ValueError(f"--set={text}: {error}") from error
    experiment = pax_fiddle.build(config)
    if not isinstance(experiment, BaseExperiment):
        raise ValueError(
            f"The config of --fdl builds a {type(experiment).__name__}, expected an experiment: "
            "return a pax_fiddle.Config(ParameterizedExperiment, ...)."
        )
    return experiment

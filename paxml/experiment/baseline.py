"""An experiment as a record of settings, for Fiddle's command line."""

import abc
import dataclasses
import difflib
from typing import Any

import fiddle as fdl

from paxml.experiment.parameterized import ParameterizedExperiment
from praxis import pax_fiddle

ExperimentConfig = pax_fiddle.Config[ParameterizedExperiment]


@dataclasses.dataclass
class BaselineExperiment(abc.ABC):
    """Settings, and what they make.

    A subclass is a dataclass: its fields are the settings, and `experiment_fixture` makes the
    config of an experiment of them. The *high-level* config has the settings as its fields, the
    *low-level* one is that of the experiment, with task and inputs. Run either by its name:

        pax train --fdl=config:my_module.Mine.lowlevel_config --fdl=set:task.train.random_seed=1 ...
        pax train --fdl=config:my_module.Mine.highlevel_config --fdl=set:num_layers=3 ...
    """

    @abc.abstractmethod
    def experiment_fixture(self) -> ExperimentConfig:
        """The config of the experiment with these settings."""

    @classmethod
    def make_experiment(cls, **settings: Any) -> ParameterizedExperiment:
        """The experiment with these settings; what a high-level config builds."""
        return pax_fiddle.build(cls(**settings).experiment_fixture())

    @classmethod
    def highlevel_config(cls, **settings: Any) -> fdl.Config[ParameterizedExperiment]:
        """A config of `make_experiment` with all settings as its arguments.

        Args:
          **settings: Those that are not at their default.

        Raises:
          TypeError: for a setting that does not exist, or a missing one without a default.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                question = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(
                    f"{cls.__name__} has no setting {name!r}.{question} It has {sorted(known)}."
                )
        filled = cls(**settings)
        values = {name: getattr(filled, name) for name in known}
        return fdl.Config(cls.make_experiment, **values)

    @classmethod
    def lower(cls, config: fdl.Config[Any]) -> ExperimentConfig:
        """The low-level config of a high-level one.

        Raises:
          ValueError: if it is not a high-level config of this class.
        """
        made_by = fdl.get_callable(config) if isinstance(config, fdl.Config) else type(config)
        if made_by != cls.make_experiment:
            raise ValueError(
                f"{cls.__name__}.lower got a config of {made_by}, expected what "
                f"{cls.__name__}.highlevel_config() returns."
            )
        settings = {str(name): value for name, value in fdl.ordered_arguments(config).items()}
        return cls(**settings).experiment_fixture()

    @classmethod
    def lowlevel_config(cls, **settings: Any) -> ExperimentConfig:
        """The config of the experiment with these settings."""
        return cls.lower(cls.highlevel_config(**settings))

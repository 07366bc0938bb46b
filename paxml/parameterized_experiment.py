"""An experiment made of configs, under its public path."""

from paxml.experiment.parameterized import ParameterizedExperiment

__all__ = ["ParameterizedExperiment"]

"""The base class of experiments, under its public path."""

from paxml.experiment.base import BaseExperiment

__all__ = ["BaseExperiment"]

"""An experiment as a record of settings, under its public path."""

from paxml.experiment.baseline import BaselineExperiment

__all__ = ["BaselineExperiment"]

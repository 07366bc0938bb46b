"""Text about experiments, under its public path."""

from paxml.experiment.base import BaseExperiment
from paxml.experiment.class_vars import get_cls_vars_summary

__all__ = ["BaseExperiment", "get_cls_vars_summary"]

"""Reads the class variables of an experiment back, under its public path."""

from paxml.experiment.class_vars import parse

__all__ = ["parse"]

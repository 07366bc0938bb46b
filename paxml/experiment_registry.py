"""Registration and look-up of experiments, under their public path."""

from paxml.experiment.registry import get, get_all, get_registry_tags, register

__all__ = ["get", "get_all", "get_registry_tags", "register"]

"""Builds configs of both kinds, and refuses everything else."""

from typing import Any

import fiddle as fdl

from praxis.config import build
from praxis.config.compat import BaseParameterizable


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Builds a config, or old hyperparameters, with some fields set first.

    Args:
      config: A Fiddle config or a `BaseParameterizable.HParams`.
      **kwargs: Values by field.

    Raises:
      ValueError: if `config` is of another type.
    """
    if isinstance(config, fdl.Buildable):
        return build.instantiate(config, **kwargs)
    if isinstance(config, BaseParameterizable.HParams):
        return config.Instantiate(**kwargs)
    raise ValueError(
        f"Unknown configuration type {type(config).__name__}: expected a pax_fiddle.Config or "
        "BaseParameterizable.HParams."
    )

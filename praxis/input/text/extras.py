"""Packages of the extra `data`, imported when they are used."""

import importlib
from types import ModuleType


def load(module: str, owner: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
      module: Its full name.
      owner: What needs it, for the message.

    Raises:
      ImportError: naming the package and the extra, if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{owner} needs the package {module.partition('.')[0]}: pip install 'pax[data]'."
        ) from error

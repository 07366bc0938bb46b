"""Modules that are imported when they are first used."""

import importlib
import types
from typing import Any

from absl import logging

# `inspect` and `doctest` ask every global for these; to answer must not import anything.
_PRESET = {"__wrapped__": None}


class LazyLoader(types.ModuleType):
    """Stands for a module until an attribute is read, then takes its place in the caller's globals.

    Example:
      >>> json = LazyLoader("json", globals(), "json")
      >>> json
      <LazyLoader json as json>
      >>> json.dumps([1])
      '[1]'
    """

    def __init__(
        self,
        local_name: str,
        parent_module_globals: dict[str, Any],
        name: str,
        warning: str | None = None,
    ):
        """Prepares the import.

        Args:
          local_name: Name of the module in the caller's globals.
          parent_module_globals: The caller's `globals()`.
          name: Full name of the module to import.
          warning: Logged once, when the module is imported.
        """
        super().__init__(name)
        vars(self).update(
            _PRESET,
            __module__=name.rsplit(".", 1)[-1],
            _local_name=local_name,
            _parent_module_globals=parent_module_globals,
            _warning=warning,
            _module=None,
        )

    _module: types.ModuleType | None

    def _load(self) -> types.ModuleType:
        """Imports the module, once.

        Raises:
          ImportError: if there is no such module.
        """
        if self._module is not None:
            return self._module
        module = importlib.import_module(self.__name__)
        if self._warning:
            logging.warning("%s", self._warning)
        self._parent_module_globals[self._local_name] = module
        vars(self).update(_module=module)
        return module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def __dir__(self) -> list[str]:
        return dir(self._load())

    def __repr__(self) -> str:
        return f"<LazyLoader {self.__name__} as {self._local_name}>"

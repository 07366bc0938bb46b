"""The settings in a config.json, with errors that name them."""

from collections.abc import Mapping
from typing import Any


class Settings:
    """What a config.json says.

    Example:
      >>> settings = Settings({"model_type": "llama", "hidden_size": 4})
      >>> settings.require("hidden_size"), settings.get("head_dim", 2)
      (4, 2)
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Wraps `values`, the parsed file."""
        self.values = values

    def require(self, name: str) -> Any:
        """The value of a setting.

        Raises:
          ValueError: if it is missing.
        """
        if self.values.get(name) is None:
            raise ValueError(
                f"config.json of model_type {self.values.get('model_type')!r} lacks {name!r}."
            )
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a setting, or `default` where it is missing or null."""
        value = self.values.get(name)
        return default if value is None else value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuses a setting whose value the layers here cannot express.

        Raises:
          ValueError: if the setting is there and its value is not among `allowed`.
        """
        value = self.get(name, allowed[0])
        if value not in allowed:
            known = ", ".join(map(repr, allowed))
            raise ValueError(
                f"config.json has {name} = {value!r}; models of model_type "
                f"{self.values.get('model_type')!r} can be read with {known}."
            )

"""A read-only view of the fields of a built object."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from praxis.config import text
from praxis.config.config import PaxConfig


class HParamsView:
    """What `obj.hparams` gives: the fields of a dataclass instance, `parent` excepted.

    Example:
      >>> import dataclasses
      >>> @dataclasses.dataclass
      ... class Point:
      ...     x: int = 1
      >>> HParamsView(Point(x=3)).x
      3
    """

    def __init__(self, owner: Any):
        object.__setattr__(self, "_owner", owner)

    @property
    def cls(self) -> type:
        """The class of the object."""
        return type(self._owner)

    def __text_items__(self) -> Iterator[tuple[str, Any]]:
        """Yields `cls` and then each field with its value."""
        yield "cls", self.cls
        for name in _field_names(self._owner):
            yield name, getattr(self, name)

    def clone(self) -> Any:
        """Returns a config of the class with the current values."""
        values = {
            name: getattr(self._owner, name)
            for name in _field_names(self._owner, init=True)
            if not _has_old_hparams(getattr(self._owner, name))
        }
        return PaxConfig(self.cls, **values).clone()

    def to_text(self, include_types: bool = False, separator: str = ":") -> Any:
        """Returns the text of the fields, as `nested_struct_to_text`."""
        return text.nested_struct_to_text(self, include_types, separator)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in _field_names(self._owner):
            raise AttributeError(
                f"hparams of {self.cls.__name__} have no field {name!r}. "
                f"Valid names: {', '.join(_field_names(self._owner))}."
            )
        value = getattr(self._owner, name)
        return value.hparams if _has_old_hparams(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"hparams of {self.cls.__name__} are read-only, so {name!r} cannot be set. "
            "Set the field in the config before the object is built."
        )

    def __repr__(self) -> str:
        values = ", ".join(
            f"{name}={value!r}" for name, value in self.__text_items__() if name != "cls"
        )
        return f"hparams of {self.cls.__name__}({values})"


def _field_names(owner: Any, init: bool = False) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(owner)
        if field.name != "parent" and (field.init or not init)
    ]


def _has_old_hparams(value: Any) -> bool:
    return getattr(type(value), "_is_base_parameterizable", False)

"""Base of configurable classes that are no layers: learners, inputs, programs."""

import dataclasses
import typing
from typing import Any, ClassVar

from praxis.config import fields
from praxis.config.config import PaxConfig
from praxis.config.hparams_view import HParamsView


class RemovedHParams:
    """Explains what replaced the nested class `HParams` of old."""

    # Flax leaves the descriptor as it is.
    nowrap = True

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(f"{owner.__name__} has no HParams; use {owner.__name__}.config(...).")


def _refuse_hidden_overrides(cls: type) -> None:
    """A class attribute without annotation would change a field's default but not its type.

    Raises:
      TypeError: naming attribute and class.
    """
    inherited = getattr(cls, "__dataclass_fields__", {})
    for name, value in vars(cls).items():
        if name in inherited and name not in vars(cls).get("__annotations__", {}):
            raise TypeError(
                f"{cls.__name__}.{name} overrides a field without an annotation. "
                f"Write {name}: {type(value).__name__} = ..."
            )


@typing.dataclass_transform(
    kw_only_default=True,
    field_specifiers=(
        dataclasses.field,
        fields.field,
        fields.instance_field,
        fields.template_field,
    ),
)
class FiddleBaseParameterizableBase:
    """Turns each subclass into a dataclass that is constructed by keyword."""

    HParams: ClassVar[Any] = RemovedHParams()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_hidden_overrides(cls)
        dataclasses.dataclass(kw_only=True)(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if args:
            raise TypeError(
                f"{cls.__name__} takes keyword arguments only, got the positional values {args}."
            )
        return super().__new__(cls)

    def __post_init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            raise ValueError(
                f"{type(self).__name__}: __post_init__ takes no arguments, got {args} {kwargs}. "
                "Declare the values as fields."
            )

    @classmethod
    def config(cls, **kwargs: Any) -> PaxConfig:
        """Returns a config of this class with some fields set."""
        return PaxConfig(cls, **kwargs)

    @property
    def hparams(self) -> HParamsView:
        """A read-only view of the fields."""
        return HParamsView(self)


class FiddleBaseParameterizable(FiddleBaseParameterizableBase):
    """Base of a configurable class; its annotated attributes are its fields.

    Fields may be required in any order. A field of a base class is overridden with an annotation.

    Attributes:
      name: Name of the object, for logs.

    Example:
      >>> class Warmup(FiddleBaseParameterizable):
      ...     steps: int
      >>> Warmup.config(steps=10).Instantiate()
      Warmup(name='', steps=10)
    """

    name: str = ""

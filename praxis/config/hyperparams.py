"""Old hyperparameter classes and the fields that hold them."""

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection
from typing import Any, ClassVar, TypeVar

import fiddle as fdl

from praxis.config import fields, text, traverse
from praxis.config.config import PaxConfig, PaxPartial

# In place of `Self`, which beartype knows in decorated classes only.
Own = TypeVar("Own")


@typing.dataclass_transform(kw_only_default=True)
class BaseHyperParams:
    """A dataclass of settings that refuses unknown names and can be frozen."""

    _is_base_hyperparams: ClassVar[bool] = True
    # Fields of a parent class that a subclass declares again on purpose.
    _attribute_overrides: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = getattr(cls, "__dataclass_fields__", {})
        for name in inspect.get_annotations(cls):
            if name in inherited and name not in cls._attribute_overrides:
                raise AttributeError(
                    f"{cls.__name__}.{name} is declared by a parent class already. "
                    "List it in _attribute_overrides to override it."
                )
        dataclasses.dataclass(kw_only=True)(cls)
        traverse.register_dataclass(cls)

    def __post_init__(self) -> None:
        for name, value in _items(self):
            if isinstance(value, BaseHyperParams):
                setattr(self, name, value.clone())

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in getattr(self, "__dataclass_fields__", {}):
            raise AttributeError(f"{type(self).__name__} has no field {name!r}.")
        if vars(self).get("_frozen", False):
            raise AttributeError(
                f"{type(self).__name__} is frozen, so {name!r} cannot be set. Set it in a clone()."
            )
        object.__setattr__(self, name, value)

    def set(self: Own, **kwargs: Any) -> Own:
        """Sets fields and returns the object itself."""
        for name, value in kwargs.items():
            setattr(self, name, value)
        return self

    def freeze(self) -> None:
        """Refuses changes from now on, here and in nested hyperparameters."""
        _set_frozen(self, True)

    def unfreeze(self) -> None:
        """Allows changes again, here and in nested hyperparameters."""
        _set_frozen(self, False)

    def clone(self: Own) -> Own:
        """Returns a deep copy that can be changed."""
        result: Any = copy.deepcopy(self)
        result.unfreeze()
        return result

    def copy_fields_from(
        self, source: "BaseHyperParams", missing_fields_in_self: Collection[str] | None = None
    ) -> None:
        """Sets all fields but `cls` to those of `source`; nested hyperparameters are cloned.

        Raises:
          TypeError: if `source` is a config.
          ValueError: if a field of `source` is missing here and is not excused by the list.
        """
        if isinstance(source, fdl.Buildable):
            raise TypeError(f"Expected hyperparameters to copy from, got a config: {source!r}.")
        own = {name for name, _ in _items(self)}
        for name, value in _items(source):
            if name == "cls" or name in (missing_fields_in_self or ()):
                continue
            if name not in own:
                raise ValueError(f"{type(self).__name__} lacks the field {name!r} of the source.")
            setattr(self, name, value.clone() if isinstance(value, BaseHyperParams) else value)

    def to_text(self, include_types: bool = False, separator: str = ":") -> Any:
        """Returns the settings as text, as `nested_struct_to_text`."""
        return text.nested_struct_to_text(self, include_types, separator)

    @classmethod
    def config(cls, **kwargs: Any) -> PaxConfig:
        """Returns a config of these hyperparameters."""
        return PaxConfig(cls, **kwargs)

    @classmethod
    def partial(cls, **kwargs: Any) -> PaxPartial:
        """Returns a partial config of these hyperparameters."""
        return PaxPartial(cls, **kwargs)


@typing.runtime_checkable
class OverrideSubConfigFieldProtocol(typing.Protocol):
    """An object that says itself which field `sub_config_field` makes of it."""

    def __to_sub_config_field__(self) -> Any:
        """Returns the dataclass field."""
        ...


@dataclasses.dataclass(frozen=True)
class FiddleHParamsClassStub:
    """Stands where a nested `HParams` class was, and configures the class itself.

    Attributes:
      fiddle_base_parameterizable_cls: The class.
    """

    fiddle_base_parameterizable_cls: type

    def __call__(self, *args: Any, **kwargs: Any) -> PaxConfig:
        return PaxConfig(self.fiddle_base_parameterizable_cls, *args, **kwargs)

    @property
    def cls(self) -> type:
        """The class."""
        return self.fiddle_base_parameterizable_cls

    def config(self, **kwargs: Any) -> PaxConfig:
        """Returns a config of the class."""
        return PaxConfig(self.fiddle_base_parameterizable_cls, **kwargs)

    def __to_sub_config_field__(self) -> Any:
        return fields.template_field(self.fiddle_base_parameterizable_cls)


@dataclasses.dataclass(frozen=True)
class SubConfigFactory:
    """Makes the default of a `sub_config_field`.

    Attributes:
      sub_config_cls: The class of hyperparameters, or None.
      lazy_ref: Gives the class when it is first needed, or None.
    """

    sub_config_cls: type | None = None
    lazy_ref: Callable[[], type] | None = None

    def get_class(self) -> type:
        """Returns the class."""
        if self.sub_config_cls is not None:
            return self.sub_config_cls
        assert self.lazy_ref is not None  # `sub_config_field` gives one of the two.
        return self.lazy_ref()

    def __call__(self) -> Any:
        return self.get_class()()


def sub_config_field(
    sub_config_cls: Any = None, *, lazy_ref: Callable[[], type] | None = None
) -> Any:
    """Declares a field that holds old hyperparameters.

    Args:
      sub_config_cls: Their class, constructed for the default; None for a default of None.
      lazy_ref: Gives the class late, in place of `sub_config_cls`.

    Raises:
      TypeError: if both are given.
    """
    if sub_config_cls is not None and lazy_ref is not None:
        raise TypeError("sub_config_field takes sub_config_cls or lazy_ref, got both.")
    if sub_config_cls is None and lazy_ref is None:
        return fields.template_field(None)
    if isinstance(sub_config_cls, OverrideSubConfigFieldProtocol):
        return sub_config_cls.__to_sub_config_field__()
    return fields.field(default_factory=SubConfigFactory(sub_config_cls, lazy_ref))


def _items(value: Any) -> list[tuple[str, Any]]:
    names = [field.name for field in dataclasses.fields(value)]
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


def _set_frozen(value: BaseHyperParams, frozen: bool) -> None:
    vars(value)["_frozen"] = frozen
    for _, child in _items(value):
        children = child if isinstance(child, list | tuple) else [child]
        for element in children:
            if isinstance(element, BaseHyperParams):
                _set_frozen(element, frozen)

"""Old base of classes constructed from nested hyperparameters."""

import dataclasses
import inspect
from typing import Any, ClassVar

from praxis.config.config import PaxConfig, PaxPartial
from praxis.config.hyperparams import BaseHyperParams


class BaseParameterizable:
    """Old base of classes that are constructed from a nested class `HParams`."""

    _is_base_parameterizable: ClassVar[bool] = True
    _USE_DEPRECATED_HPARAMS_BASE_PARAMETERIZABLE: ClassVar[bool] = False

    class HParams(BaseHyperParams):
        """Settings of the class.

        Attributes:
          cls: The class they are for.
        """

        _attribute_overrides: ClassVar[tuple[str, ...]] = ("cls",)
        cls: Any = None

        def Instantiate(self, **kwargs: Any) -> Any:
            """Constructs the class with a clone of these settings."""
            return self.cls(self.clone(), **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls._USE_DEPRECATED_HPARAMS_BASE_PARAMETERIZABLE:
            raise ValueError(
                f"{cls.__name__}: derive from FiddleBaseParameterizable, whose fields are the "
                "settings, or set _USE_DEPRECATED_HPARAMS_BASE_PARAMETERIZABLE = True."
            )
        cls.HParams = _hparams_class(cls)
        taken = _own_arguments(cls)
        if both := taken & set(cls.HParams.__dataclass_fields__):
            raise TypeError(f"{cls.__name__}: {sorted(both)} are in HParams and in __init__.")

    def __init__(self, hparams: Any):
        self._hparams = hparams.clone()
        self._hparams.freeze()

    @property
    def hparams(self) -> Any:
        """The frozen settings."""
        return self._hparams

    @classmethod
    def make(cls, **kwargs: Any) -> Any:
        """Constructs an object from settings and further arguments of `__init__`, all by name.

        Raises:
          ValueError: if required settings are missing.
        """
        declared = dataclasses.fields(cls.HParams)
        missing = [f.name for f in declared if _is_required(f) and f.name not in kwargs]
        if missing:
            raise ValueError(f"{cls.__name__}: values are missing for {missing}.")
        names = {field.name for field in declared}
        settings = {name: value for name, value in kwargs.items() if name in names}
        others = {name: value for name, value in kwargs.items() if name not in names}
        return cls.HParams(**settings).Instantiate(**others)

    @classmethod
    def config(cls, **kwargs: Any) -> PaxConfig:
        """Returns a config of `make`."""
        return PaxConfig(cls.make, **kwargs)

    @classmethod
    def partial(cls, **kwargs: Any) -> PaxPartial:
        """Returns a partial config of `make`."""
        return PaxPartial(cls.make, **kwargs)


def _hparams_class(owner: Any) -> type:
    """Builds the nested `HParams` anew, on top of the parent's, with `cls` filled in."""
    parent = next(vars(base)["HParams"] for base in owner.__mro__[1:] if "HParams" in vars(base))
    nested = vars(owner).get("HParams")
    bases = (parent,)
    if nested is not None:
        bases = (nested,) if issubclass(nested, parent) else (nested, parent)
    body = {
        "__module__": owner.__module__,
        "__qualname__": f"{owner.__qualname__}.HParams",
        "__annotations__": {"cls": Any},
        "cls": owner,
        "_attribute_overrides": (*getattr(nested, "_attribute_overrides", ()), "cls"),
    }
    return type("HParams", bases, body)


def _own_arguments(cls: type) -> set[str]:
    """Returns the parameters of `__init__` besides the settings.

    Raises:
      TypeError: if it does not take the settings.
    """
    parameters = set(inspect.signature(cls.__init__).parameters)
    if "hparams" not in parameters:
        raise TypeError(f"{cls.__name__}.__init__ has no parameter 'hparams'.")
    return parameters - {"self", "hparams"}


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING

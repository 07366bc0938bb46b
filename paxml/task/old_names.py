"""Old names of the settings classes, such as `SingleTask.TrainHParams`."""

import dataclasses
from typing import Any

from praxis import base_hyperparams, pax_fiddle


class OldSettings(base_hyperparams.FiddleHParamsClassStub):
    """Base of the old names: a call or `config` gives a config of the class behind it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return pax_fiddle.Config(cls.fiddle_base_parameterizable_cls, *args, **kwargs)

    @classmethod
    def config(cls, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A config of the class behind the name."""
        return pax_fiddle.Config(cls.fiddle_base_parameterizable_cls, **kwargs)


def old_name(name: str, cls: type) -> Any:
    """A class of that name that stands for `cls`."""
    body = {
        "__doc__": f"Old name of `{cls.__name__}`.",
        "__annotations__": {"fiddle_base_parameterizable_cls": type},
        "fiddle_base_parameterizable_cls": cls,
    }
    return dataclasses.dataclass(frozen=True)(type(name, (OldSettings,), body))

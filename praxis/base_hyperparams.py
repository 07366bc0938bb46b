"""Configurable classes and the text of configs, gathered under their public path."""

from praxis.config.compat import BaseParameterizable
from praxis.config.hyperparams import (
    BaseHyperParams,
    FiddleHParamsClassStub,
    OverrideSubConfigFieldProtocol,
    SubConfigFactory,
    sub_config_field,
)
from praxis.config.instantiate import instantiate
from praxis.config.parameterizable import FiddleBaseParameterizable, FiddleBaseParameterizableBase
from praxis.config.text import StrOverride, nested_struct_to_text
from praxis.config.visit import visit_nested_struct

__all__ = [
    "BaseHyperParams",
    "BaseParameterizable",
    "FiddleBaseParameterizable",
    "FiddleBaseParameterizableBase",
    "FiddleHParamsClassStub",
    "OverrideSubConfigFieldProtocol",
    "StrOverride",
    "SubConfigFactory",
    "instantiate",
    "nested_struct_to_text",
    "sub_config_field",
    "visit_nested_struct",
]

"""Configs and the fields that hold them, gathered under their public path."""

from fiddle import copy_with, deepcopy_with

from praxis.config.auto import auto_config
from praxis.config.build import (
    TemplateWrapper,
    build,
    build_with_empty_flax_module_stack,
    copy_inheritable_base_layer_params,
    instantiate,
    wrap_templates,
)
from praxis.config.config import CloneAndSetMixin, PaxArgFactory, PaxConfig, PaxPartial
from praxis.config.config import PaxArgFactory as ArgFactory
from praxis.config.config import PaxConfig as Config
from praxis.config.config import PaxPartial as Partial
from praxis.config.fields import field, instance_field, template_field
from praxis.config.fields import field as fdl_field
from praxis.config.metadata import FieldMetadata, field_has_tag, field_metadata
from praxis.config.module_stack import empty_flax_module_stack
from praxis.config.tags import DoNotBuild
from praxis.config.transfer import update_callable
from praxis.config.traverse import BasicTraversal, MemoizedTraversal, iterate

__all__ = [
    "ArgFactory",
    "BasicTraversal",
    "CloneAndSetMixin",
    "Config",
    "DoNotBuild",
    "FieldMetadata",
    "MemoizedTraversal",
    "Partial",
    "PaxArgFactory",
    "PaxConfig",
    "PaxPartial",
    "TemplateWrapper",
    "auto_config",
    "build",
    "build_with_empty_flax_module_stack",
    "copy_inheritable_base_layer_params",
    "copy_with",
    "deepcopy_with",
    "empty_flax_module_stack",
    "fdl_field",
    "field",
    "field_has_tag",
    "field_metadata",
    "instance_field",
    "instantiate",
    "iterate",
    "template_field",
    "update_callable",
    "wrap_templates",
]

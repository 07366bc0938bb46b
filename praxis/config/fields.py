"""Dataclass fields that a config fills in with sub-configs."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import fiddle as fdl
from fiddle import signatures

from praxis.config.auto import configure, is_auto_config
from praxis.config.config import PaxConfig
from praxis.config.metadata import METADATA_KEY, FieldMetadata

Tags = type[fdl.Tag] | Collection[type[fdl.Tag]]


def field(
    *,
    default_factory: Any = dataclasses.MISSING,
    tags: Tags = (),
    metadata: Mapping[Any, Any] | None = None,
    configurable_factory: bool = False,
    **kwargs: Any,
) -> Any:
    """As `dataclasses.field`, and a config can hold a sub-config in place of the default object.

    Args:
      default_factory: Makes the default when the class is called directly. With an `auto_config`
        function, a config holds the function's `as_buildable()`.
      tags: One Fiddle tag or several, attached to the argument in each config.
      metadata: Further metadata of the field.
      configurable_factory: A config holds `Config(default_factory)`.
      **kwargs: Further arguments of `dataclasses.field`.

    Raises:
      ValueError: if `configurable_factory` is set and `default_factory` is an `auto_config`
        function or nothing that can be configured; if there are two defaults.
    """
    is_auto = is_auto_config(default_factory)
    if configurable_factory and is_auto:
        raise ValueError(
            f"default_factory {default_factory.__name__} is an auto_config function, whose result "
            "configs hold already; leave out configurable_factory."
        )
    if configurable_factory and not _is_configurable(default_factory):
        raise ValueError(
            "configurable_factory needs a default_factory that is a callable with a signature, "
            f"got {default_factory!r}."
        )
    initializer = None
    if is_auto:
        initializer = default_factory.as_buildable
    elif configurable_factory:
        initializer = functools.partial(PaxConfig, default_factory)
    return _field(default_factory, initializer, tags, metadata, **kwargs)


def instance_field(default_factory: Callable[..., Any] | None, tags: Tags = ()) -> Any:
    """Declares a field that is built together with the object that holds it.

    Args:
      default_factory: Class or function that makes the default; a config holds its config. `list`
        and `dict` give an empty container on both paths. None: the default is None.
      tags: One Fiddle tag or several.
    """
    if default_factory is None:
        return field(default=None, tags=tags)
    if default_factory in (list, dict):
        return _field(default_factory, default_factory, tags)
    is_auto = is_auto_config(default_factory)
    return field(default_factory=default_factory, tags=tags, configurable_factory=not is_auto)


def template_field(template: Any = dataclasses.MISSING, tags: Tags = ()) -> Any:
    """Declares a field that holds a config, which the object builds itself when it wants.

    The annotation must be a config type, alone or in a list, tuple, dict or union: the annotation,
    not this function, keeps the config from being built with its holder.

    Args:
      template: The class to configure, or a function, whose result is configured. None: the
        default is None. Left out: the field is required.
      tags: One Fiddle tag or several.
    """
    if template is None:
        return field(default=None, tags=tags)
    if template is dataclasses.MISSING:
        return field(tags=tags)
    make = functools.partial(configure, template)
    return _field(make, make, tags)


def _field(
    default_factory: Any,
    initializer: Callable[[], Any] | None,
    tags: Tags,
    metadata: Mapping[Any, Any] | None = None,
    **kwargs: Any,
) -> Any:
    entry = FieldMetadata(
        tags=(tags,) if isinstance(tags, type) else tuple(tags), buildable_initializer=initializer
    )
    if default_factory is not dataclasses.MISSING:
        kwargs["default_factory"] = default_factory
    return dataclasses.field(metadata={**(metadata or {}), METADATA_KEY: entry}, **kwargs)


def _is_configurable(factory: Any) -> bool:
    return callable(factory) and signatures.has_signature(factory)

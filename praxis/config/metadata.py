"""What a dataclass field tells its configs: tags, and how a config fills it in."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import fiddle as fdl

METADATA_KEY = "praxis.config"


@dataclasses.dataclass(frozen=True)
class FieldMetadata:
    """Entry that the field helpers leave in the metadata of a dataclass field.

    Attributes:
      tags: Tags that every config of the class attaches to the argument.
      buildable_initializer: Makes the value a config holds when none is given; None: no value.
    """

    tags: Collection[type[fdl.Tag]] = ()
    buildable_initializer: Callable[[], Any] | None = None


def field_metadata(dc_field: dataclasses.Field) -> FieldMetadata:
    """Returns the entry of a dataclass field; an empty one for an ordinary field."""
    return dc_field.metadata.get(METADATA_KEY) or FieldMetadata()


def field_has_tag(dc_field: dataclasses.Field, tag: type[fdl.Tag]) -> bool:
    """Returns whether the field carries `tag` or a tag derived from it."""
    return any(issubclass(own, tag) for own in field_metadata(dc_field).tags)

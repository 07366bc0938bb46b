"""Questions about templates."""

from typing import Any

from praxis import pax_fiddle


def template_has_type(template: Any, cls: type) -> bool:
    """Whether something is an instance of a class, or a config of exactly this class."""
    if isinstance(template, pax_fiddle.Config):
        return template.cls is cls
    return isinstance(template, cls)

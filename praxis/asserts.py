"""Checks of values, gathered under their public path."""

from praxis.utils.checks import (
    AssertsContext,
    assert_same_structure,
    between,
    eq,
    ge,
    gt,
    in_set,
    instance,
    le,
    lt,
    ne,
    none,
    not_none,
    subclass,
)

__all__ = [
    "AssertsContext",
    "assert_same_structure",
    "between",
    "eq",
    "ge",
    "gt",
    "in_set",
    "instance",
    "le",
    "lt",
    "ne",
    "none",
    "not_none",
    "subclass",
]

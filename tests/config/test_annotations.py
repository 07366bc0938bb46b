"""Which annotations keep a config from being built (core behaviours 23 and 24)."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, Union

import fiddle as fdl
import pytest
from flax import linen as nn

from praxis import pax_fiddle

if TYPE_CHECKING:
    from nowhere import Missing  # pyright: ignore[reportMissingImports]

Config = pax_fiddle.Config


@dataclasses.dataclass
class Leaf:
    size: int = 5


LEAF = Config(Leaf)
FORMS = [
    (Config, LEAF),
    (Config[Leaf], LEAF),
    (fdl.Config, LEAF),
    (fdl.Partial[Leaf], LEAF),
    (Config | None, LEAF),
    (Optional[Config[Leaf]], LEAF),  # noqa: UP045 - this spelling is under test
    (list[Config], [LEAF]),
    (tuple[Config, ...], (LEAF,)),
    (dict[str, Config], {"key": LEAF}),
    (Mapping[str, Sequence[Config[Leaf]]], {"key": [LEAF]}),
    (Union[Config, Sequence[Config], None], [LEAF]),  # noqa: UP007 - this spelling is under test
    (Config | int, LEAF),
    (typing.Annotated[Config, "text"], LEAF),
    (typing.Annotated[list[Config], "text"], [LEAF]),
]
NOT_TEMPLATES = [
    (Any, LEAF, Leaf()),
    (Leaf, LEAF, Leaf()),
    (list[Leaf], [LEAF], [Leaf()]),
    (Literal["a"] | None, LEAF, Leaf()),
    (object, LEAF, Leaf()),
]


def make_function(annotation):
    def function(field=None):
        return field

    function.__annotations__ = {"field": annotation}
    return function, lambda built: built


def make_dataclass(annotation):
    cls = dataclasses.make_dataclass("Holder", [("field", annotation, None)])
    return cls, lambda built: built.field


def make_plain_class(annotation):
    class Plain:
        def __init__(self, field=None):
            self.field = field

    Plain.__init__.__annotations__ = {"field": annotation}
    return Plain, lambda built: built.field


def make_named_tuple(annotation):
    return NamedTuple("Named", [("field", annotation)]), lambda built: built.field


def make_module(annotation):
    body = {"__annotations__": {"field": annotation}, "field": None, "__module__": __name__}
    return type("Layer", (nn.Module,), body), lambda built: built.field


MAKERS = [make_function, make_dataclass, make_plain_class, make_named_tuple]


@pytest.mark.parametrize("maker", [*MAKERS, make_module])
@pytest.mark.parametrize(("annotation", "value"), FORMS, ids=[str(form[0]) for form in FORMS])
def test_templates_stay(maker, annotation, value):
    """Behaviour 23."""
    target, read = maker(annotation)
    assert read(pax_fiddle.build(Config(target, field=value))) == value


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("annotation", "value", "expected"), NOT_TEMPLATES)
def test_other_fields_are_built(maker, annotation, value, expected):
    target, read = maker(annotation)
    assert read(pax_fiddle.build(Config(target, field=value))) == expected


@pytest.mark.parametrize(
    "annotation",
    [
        set[Config],
        type[Config],
        Callable[[], Config],
        Callable[[Config], int],
        Config | set[Config],
    ],
)
def test_containers_that_cannot_hold_templates(annotation):
    """Behaviour 24."""
    target, _ = make_dataclass(annotation)
    with pytest.raises(ValueError, match=r"Holder\.field.*Config"):
        pax_fiddle.build(Config(target, field=LEAF))


class Postponed(nn.Module):
    """Annotations are strings here, and one of them names nothing."""

    child_tpl: Config[Leaf] | None = None
    child: Any = None
    missing: Missing | None = None


def test_unresolved_annotation_spoils_no_other_field():
    config = Config(Postponed, child_tpl=LEAF, child=LEAF, missing=3)
    built = pax_fiddle.build(config)
    assert (built.child_tpl, built.child, built.missing) == (LEAF, Leaf(), 3)


def test_unresolved_annotation_of_a_field_with_a_config():
    with pytest.raises(
        TypeError, match=r"Postponed\.missing.*'Missing \| None' cannot be resolved"
    ):
        pax_fiddle.build(Config(Postponed, missing=LEAF))


def test_unresolved_annotation_of_a_function():
    def function(field: Missing):
        return field

    with pytest.raises(TypeError, match=r"function\.field.*'Missing' cannot be resolved"):
        pax_fiddle.build(Config(function, field=LEAF))


def test_keywords_and_rest_of_a_function():
    def function(first: Config, /, *rest: Config, plain: Any = None, **named: Config):
        return first, rest, plain, named

    config = Config(function, LEAF, LEAF, LEAF, plain=LEAF, more=LEAF)
    assert pax_fiddle.build(config) == (LEAF, (LEAF, LEAF), Leaf(), {"more": LEAF})

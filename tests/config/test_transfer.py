"""Other classes and other configs' fields (core behaviours 9, 10 and 30)."""

import dataclasses
from typing import Any

import fiddle as fdl
import pytest

from praxis import fiddle_tags, pax_fiddle


@dataclasses.dataclass
class Leaf:
    size: int = 5


@dataclasses.dataclass
class Old:
    a: int = 1
    b: int = 2
    leaf: Any = pax_fiddle.instance_field(Leaf)


@dataclasses.dataclass
class New:
    a: int = 1
    leaf: Any = pax_fiddle.instance_field(Old)
    other: Any = pax_fiddle.instance_field(Leaf)
    rate: float = pax_fiddle.field(default=0.5, tags=fiddle_tags.DropoutRate)


def test_assigning_cls_keeps_arguments():
    """Behaviours 9 and 10."""
    config = pax_fiddle.Config(Old, a=3)
    assert config.cls is Old
    config.cls = New
    assert (config.cls, config.a, config.rate) == (New, 3, 0.5)
    assert config.leaf == pax_fiddle.Config(Leaf)
    assert config.other == pax_fiddle.Config(Leaf)
    assert fdl.get_tags(config, "rate") == {fiddle_tags.DropoutRate}
    assert pax_fiddle.build(config).leaf == Leaf()


def test_explicit_none_is_kept():
    """Behaviour 10."""
    config = pax_fiddle.Config(Old, leaf=None)
    config.set(cls=New)
    assert config.leaf is None


def test_arguments_that_the_new_class_lacks():
    """Behaviour 9."""
    config = pax_fiddle.Config(Old, a=3, b=4)
    with pytest.raises(TypeError, match=r"New does not take the arguments \['b'\].* Old has set"):
        config.cls = New
    assert config.cls is Old and config.b == 4
    pax_fiddle.update_callable(config, New, drop_invalid_args=True)
    assert config.a == 3
    with pytest.raises(AttributeError, match="New has no field 'b'"):
        _ = config.b


class WithParent:
    def __init__(self, parent=None, name=None, size=1):
        pass


@dataclasses.dataclass
class First:
    size: int
    extra: int = 7
    made: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Second:
    size: int = 2
    made: list = dataclasses.field(default_factory=list)
    own: int = 3


@dataclasses.dataclass
class Third:
    size: int = 2
    made: Any = dataclasses.field(default_factory=dict)


def test_copied_fields_are_independent():
    """Behaviour 30."""
    source = pax_fiddle.Config(Old, a=3, leaf=pax_fiddle.Config(Leaf, size=9))
    target = pax_fiddle.Config(Old, b=4)
    target.copy_fields_from(source)
    assert target == source
    assert target.leaf is not source.leaf
    assert target.b == 2


def test_name_is_copied_and_parent_is_not():
    """Behaviour 30."""
    target = pax_fiddle.Config(WithParent, parent="own")
    target.copy_fields_from(pax_fiddle.Config(WithParent, parent="other", name="new"))
    assert (target.parent, target.name) == ("own", "new")


def test_fields_of_one_side_only():
    """Behaviour 30."""
    source, target = pax_fiddle.Config(First, size=5), pax_fiddle.Config(Second, own=9)
    with pytest.raises(ValueError, match=r"First\.extra cannot be copied: Second has no field"):
        target.copy_fields_from(source)
    target.copy_fields_from(source, missing_fields_in_self=["extra"])
    assert (target.size, target.own) == (5, 9)


def test_required_field_of_the_source_must_be_set():
    """Behaviour 30."""
    with pytest.raises(ValueError, match=r"First\.size is required"):
        pax_fiddle.Config(First).copy_fields_from(pax_fiddle.Config(First))


def test_factories():
    """Behaviour 30."""
    target = pax_fiddle.Config(Second, made=[1])
    target.copy_fields_from(pax_fiddle.Config(First, size=5), ["extra"])
    assert pax_fiddle.build(target).made == []
    with pytest.raises(ValueError, match=r"Second\.made is not set, and Third\.made has another"):
        pax_fiddle.Config(Third).copy_fields_from(pax_fiddle.Config(Second), ["own"])


def test_source_of_another_kind():
    """Behaviour 30."""
    with pytest.raises(TypeError, match="from a PaxConfig, got Leaf"):
        pax_fiddle.Config(Leaf).copy_fields_from(Leaf())  # pyright: ignore[reportArgumentType]

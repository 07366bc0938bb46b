"""`auto_config` makes Pax configs (core behaviour 31)."""

import dataclasses
import functools
from typing import Any

import pytest

from praxis import pax_fiddle


@dataclasses.dataclass
class Item:
    value: Any = 0
    children: Any = ()

    @pax_fiddle.auto_config
    @classmethod
    def pair(cls, value):
        return cls(value, [Item(1), Item(2)])

    @pax_fiddle.auto_config
    @staticmethod
    def single():
        return Item("single")


@pax_fiddle.auto_config
def leaf(value):
    return Item(value)


@pax_fiddle.auto_config
def tree(count, wide=False):
    children = [leaf(index) for index in range(count)]
    if wide:
        children.append(functools.partial(Item, 7))
    return Item("root", children)


def test_plain_call_returns_objects():
    """Behaviour 31."""
    assert tree(2) == Item("root", [Item(0), Item(1)])


def test_as_buildable_inlines_and_allows_control_flow():
    """Behaviour 31."""
    config = tree.as_buildable(2, wide=True)
    assert type(config) is pax_fiddle.Config and config.value == "root"
    assert config.children[:2] == [pax_fiddle.Config(Item, 0), pax_fiddle.Config(Item, 1)]
    assert config.children[2] == pax_fiddle.Partial(Item, 7)
    assert pax_fiddle.build(config).children[2]() == Item(7)


def test_methods():
    """Behaviour 31."""
    assert Item.pair(3) == Item(3, [Item(1), Item(2)])
    config = Item.pair.as_buildable(3)
    assert config.cls is Item and config.children[1] == pax_fiddle.Config(Item, 2)
    assert Item.single.as_buildable() == pax_fiddle.Config(Item, "single")


def test_class_and_wrapped_functions():
    wrapped = pax_fiddle.auto_config(Item)
    assert wrapped() == Item()
    assert wrapped.as_buildable() == pax_fiddle.Config(Item)
    assert pax_fiddle.auto_config(wrapped) is wrapped


def test_options_and_results_without_config():
    @pax_fiddle.auto_config(experimental_always_inline=False)
    def kept():
        return Item()

    @pax_fiddle.auto_config
    def nothing():
        return {}

    assert not kept.always_inline
    assert nothing.as_buildable() == {}


def test_configs_made_inside_are_not_configured_again():
    @pax_fiddle.auto_config
    def make():
        return pax_fiddle.Config(Item, 3)

    assert make.as_buildable() == pax_fiddle.Config(Item, 3)


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="only compatible with functions"):
        pax_fiddle.auto_config(3)

"""Dataclass fields that configs fill in (core behaviours 19 to 22 and 27 to 29)."""

import dataclasses
import functools
from typing import Any

import fiddle as fdl
import pytest

from praxis import fiddle_tags, pax_fiddle


@dataclasses.dataclass
class Color:
    name: str = "red"
    parts: list = pax_fiddle.instance_field(list)


def make_green() -> Color:
    return Color("green")


make_blue = pax_fiddle.auto_config(lambda: Color("blue"))


@dataclasses.dataclass
class Palette:
    color: Color = pax_fiddle.instance_field(Color, tags=fiddle_tags.WeightInit)
    blue: Color = pax_fiddle.instance_field(make_blue)
    green: Color = pax_fiddle.instance_field(make_green)
    nothing: Color | None = pax_fiddle.instance_field(None)
    table: dict = pax_fiddle.instance_field(dict)


@dataclasses.dataclass
class Templates:
    color_tpl: pax_fiddle.Config[Color] = pax_fiddle.template_field(Color)
    dark_tpl: pax_fiddle.Config[Color] = pax_fiddle.template_field(lambda: Color(name="dark"))
    blue_tpl: pax_fiddle.Config[Color] = pax_fiddle.template_field(make_blue)
    nothing_tpl: pax_fiddle.Config[Color] | None = pax_fiddle.template_field(None)


@dataclasses.dataclass
class Required:
    color_tpl: pax_fiddle.Config[Color] = pax_fiddle.template_field()


def test_instance_field_on_both_paths():
    """Behaviour 19."""
    config = pax_fiddle.Config(Palette)
    assert config.color == pax_fiddle.Config(Color)
    assert config.blue == pax_fiddle.Config(Color, "blue")
    assert config.green == pax_fiddle.Config(make_green)
    assert config.nothing is None
    assert pax_fiddle.build(config) == Palette()
    assert Palette().green == Color("green")


def test_configs_share_no_defaults():
    """Behaviour 19."""
    first, second = pax_fiddle.Config(Palette), pax_fiddle.Config(Palette)
    assert first.color is not second.color and first.color is not first.blue
    first.color.name = "other"
    assert second.color.name == "red"


def test_template_field_on_both_paths():
    """Behaviours 20 and 21."""
    built = pax_fiddle.build(pax_fiddle.Config(Templates))
    assert built == Templates()
    assert built.color_tpl == pax_fiddle.Config(Color)
    assert built.dark_tpl == pax_fiddle.Config(Color, name="dark")
    assert built.blue_tpl == pax_fiddle.Config(Color, name="blue")
    assert built.nothing_tpl is None
    assert Templates().color_tpl is not Templates().color_tpl


def test_template_field_without_argument_is_required():
    """Behaviour 20."""
    with pytest.raises(AttributeError, match=r"Required\.color_tpl is required"):
        _ = pax_fiddle.Config(Required).color_tpl
    with pytest.raises(TypeError, match="color_tpl"):
        pax_fiddle.build(pax_fiddle.Config(Required))


def test_function_without_source_gives_a_config_of_the_function():
    make = eval("lambda: Color('late')", {"Color": Color})

    @dataclasses.dataclass
    class Late:
        color_tpl: pax_fiddle.Config = pax_fiddle.template_field(make)

    assert pax_fiddle.Config(Late).color_tpl == pax_fiddle.Config(make)


def test_template_field_of_a_config_copies_it():
    given = pax_fiddle.Config(Color, name="given")

    @dataclasses.dataclass
    class Given:
        color_tpl: pax_fiddle.Config = pax_fiddle.template_field(given)

    made = pax_fiddle.Config(Given).color_tpl
    assert made == given and made is not given


def test_containers_are_fresh_and_their_configs_are_built():
    """Behaviour 22."""
    config = pax_fiddle.Config(Palette)
    config.color.parts.append(pax_fiddle.Config(Color))
    config.table["key"] = pax_fiddle.Config(Color)
    built = pax_fiddle.build(config)
    assert built.color.parts == [Color()] and built.table == {"key": Color()}
    other = pax_fiddle.Config(Palette)
    assert (other.color.parts, other.table) == ([], {})


def test_subclass_replaces_the_default_and_keeps_the_position():
    """Behaviour 28."""

    @dataclasses.dataclass
    class Darker(Templates):
        dark_tpl: pax_fiddle.Config[Color] = pax_fiddle.template_field(lambda: Color("black"))

    assert pax_fiddle.Config(Darker).dark_tpl.name == "black"
    names = [field.name for field in dataclasses.fields(Darker)]
    assert names == [field.name for field in dataclasses.fields(Templates)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"default": 1, "default_factory": Color}, "default and default_factory"),
        (
            {"default_factory": make_blue, "configurable_factory": True},
            "is an auto_config function",
        ),
        ({"default": 1, "configurable_factory": True}, "needs a default_factory"),
        ({"default_factory": 3, "configurable_factory": True}, "callable with a signature, got 3"),
    ],
)
def test_wrong_arguments_of_field(arguments, text):
    """Behaviour 28."""
    with pytest.raises(ValueError, match=text):
        pax_fiddle.field(**arguments)


def test_field_metadata_and_tags():
    """Behaviour 29."""

    @dataclasses.dataclass
    class Tagged:
        dtype: Any = pax_fiddle.field(
            default=None, tags=[fiddle_tags.ParamsDType], metadata={"unit": "bits"}
        )
        plain: int = 0
        made: Color = pax_fiddle.fdl_field(default_factory=Color, configurable_factory=True)

    dtype, plain, made = dataclasses.fields(Tagged)
    assert dtype.metadata["unit"] == "bits"
    assert pax_fiddle.field_has_tag(dtype, fiddle_tags.ParamsDType)
    assert pax_fiddle.field_has_tag(dtype, fiddle_tags.BaseDType)
    assert not pax_fiddle.field_has_tag(dtype, fiddle_tags.DropoutRate)
    assert not pax_fiddle.field_has_tag(plain, fiddle_tags.ParamsDType)
    assert pax_fiddle.field_metadata(plain) == pax_fiddle.FieldMetadata()
    make = pax_fiddle.field_metadata(made).buildable_initializer
    assert make is not None and make() == pax_fiddle.Config(Color)


def test_partial_makes_defaults_for_each_call():
    """Behaviour 27."""
    make = pax_fiddle.build(pax_fiddle.Partial(Palette))
    first, second = make(), make()
    assert first == second == Palette()
    assert first.color is not second.color and first.color.parts is not second.color.parts
    assert first.table is not second.table


def test_partial_shares_what_was_given():
    """Behaviour 27."""
    make = pax_fiddle.build(pax_fiddle.Partial(Palette, color=pax_fiddle.Config(Color, "given")))
    assert make().color is make().color
    assert make(color=None).color is None


def test_partial_gives_each_call_its_own_template():
    config = pax_fiddle.Partial(Templates)
    config.color_tpl.name = "set"
    make = pax_fiddle.build(config)
    assert make().color_tpl == pax_fiddle.Config(Color, "set")
    assert make().color_tpl is not make().color_tpl


def test_partial_logs_nothing(caplog):
    pax_fiddle.Partial(Palette)
    assert not caplog.records


def test_partial_default_that_holds_a_config_cannot_be_made_for_each_call():
    """Behaviour 27."""

    @dataclasses.dataclass
    class Nested:
        make: Any = pax_fiddle.field(
            default_factory=pax_fiddle.auto_config(
                lambda: functools.partial(Palette, color=Color())
            )
        )

    with pytest.raises(ValueError, match=r"Unable to safely replace Nested\.make"):
        pax_fiddle.Partial(Nested)


def test_arg_factory_fills_in_factories():
    config = pax_fiddle.ArgFactory(Palette)
    assert type(config.color) is pax_fiddle.ArgFactory
    assert type(fdl.cast(fdl.ArgFactory, config).color) is pax_fiddle.ArgFactory

"""Configs to JSON and to Python code, and back."""

import dataclasses
import enum
import functools
import json
import sys
import types
import typing

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registry

from praxis import base_layer, fiddle_tags, inspection, pax_fiddle, py_utils
from praxis.config import calls
from praxis.layers import linears

# The code imports by name, so what the configs name must be in a module that can be imported.
HERE = types.ModuleType("praxis_serialized_examples")
sys.modules[HERE.__name__] = HERE


def importable(thing):
    thing.__module__ = HERE.__name__
    setattr(HERE, thing.__name__, thing)
    return thing


@importable
def make(value=None, other=None, *more, **rest):
    return value, other, more, rest


@importable
class Color(enum.Enum):
    RED = 1


@importable
class Pair(typing.NamedTuple):
    left: typing.Any
    right: typing.Any


@importable
@dataclasses.dataclass
class Doubled:
    size: int

    def __post_init__(self):
        self.size *= 2


def through_json(config):
    return inspection.config_from_json(inspection.config_to_json(config))


def through_python(config):
    names: dict[str, typing.Any] = {}
    exec(inspection.config_to_python(config), names)
    return names["make_config"]()


WAYS = pytest.mark.parametrize("way", [through_json, through_python], ids=["json", "python"])

VALUES = {
    "scalars": [None, True, 1, 1.5, float("inf"), 'it\'s "quoted"\n', 2 + 1j, b"\x00a"],
    "dtypes": [jnp.float32, jnp.bfloat16, jnp.int4, np.float32, np.dtype("int8")],
    "extended_dtype": jnp.dtype("bfloat16"),
    "functions": [jax.nn.relu, jax.nn.gelu, jnp.tanh, jax.nn.initializers.zeros, len, np.add],
    "methods": [linears.Linear.config, base_layer.WeightInit.Gaussian],
    "classes": [linears.Linear, dict, Pair],
    "enums": [Color.RED, base_layer.SummaryType.SCALAR, jax.lax.Precision.HIGHEST],
    "initializer": base_layer.WeightInit.Gaussian(0.02),
    "sharding": jax.sharding.PartitionSpec("data", None, ("x", "y")),
    "named_tuple": Pair((1,), Pair([], {})),
    "nested": {"a": [1, (2, {"b": [3.0]})], 5: {"": ()}},
    "nested_map": py_utils.NestedMap(a=1, b=py_utils.NestedMap(c=[2])),
    "sets": [{1, 2}, frozenset(["x"])],
    "ranges": [range(1, 7, 2), slice(None, 5)],
    "numpy_scalar": np.float32(0.1),
}


def kinds(value):
    """Types of everything in a nest of containers."""
    if isinstance(value, dict):
        return type(value), [(key, kinds(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    return type(value)


@WAYS
@pytest.mark.parametrize("name", VALUES)
def test_values(way, name):
    config = pax_fiddle.Config(make, value=VALUES[name])
    again = way(config)
    assert again == config
    assert type(again) is type(config)
    assert kinds(again.value) == kinds(config.value)


@WAYS
@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=np.int8).reshape(2, 3), np.zeros([2, 0, 3]), jnp.ones([2], jnp.bfloat16)],
    ids=["numpy", "empty", "jax"],
)
def test_arrays(way, array):
    again = way(pax_fiddle.Config(make, value=array)).value
    assert isinstance(again, np.ndarray) == isinstance(array, np.ndarray)
    assert (again.shape, again.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(again, array)


@WAYS
def test_partial_functions(way):
    again = way(pax_fiddle.Config(make, value=functools.partial(np.sum, axis=(1,)))).value
    assert (again.func, again.args, again.keywords) == (np.sum, (), {"axis": (1,)})


@WAYS
@pytest.mark.parametrize("kind", [pax_fiddle.Partial, pax_fiddle.ArgFactory, fdl.Config])
def test_kinds_of_config(way, kind):
    config = pax_fiddle.Config(make, value=kind(make, 1, 2, 3, named=4))
    again = way(config)
    assert again == config
    assert type(again.value) is kind


@WAYS
def test_tags(way):
    config = pax_fiddle.Config(make, value=[pax_fiddle.Config(linears.Linear)])
    fdl.add_tag(config.value[0], "dtype", fiddle_tags.ActivationDType)
    fdl.add_tag(config, "other", fiddle_tags.DropoutRate)
    again = way(config)
    assert fdl.get_tags(again.value[0], "dtype") == {fiddle_tags.ActivationDType}
    assert fdl.get_tags(again, "other") == {fiddle_tags.DropoutRate}


@WAYS
def test_tags_taken_away(way):
    config = pax_fiddle.Config(linears.Linear)
    field = "weight_split_dims_mapping"
    for tag in fdl.get_tags(config, field):
        fdl.remove_tag(config, field, tag)
    assert fdl.get_tags(way(config), field) == frozenset()


@WAYS
def test_sharing(way):
    shared = pax_fiddle.Config(make, value=[1])
    again = way(pax_fiddle.Config(make, value=shared, other=[shared, shared.value]))
    assert again.value is again.other[0]
    assert again.value.value is again.other[1]
    apart = way(pax_fiddle.Config(make, value=shared, other=shared.clone()))
    assert apart.value is not apart.other


@WAYS
def test_defaults_that_were_taken_away_or_replaced(way):
    config = pax_fiddle.Config(linears.FeedForward)
    del config.linear_tpl
    config.activation_tpl = None
    again = way(config)
    assert again == config
    assert "linear_tpl" not in again.__arguments__


@WAYS
def test_a_nest_of_configs(way):
    nest = {"a": [pax_fiddle.Config(linears.Linear, input_dims=3)], "b": ()}
    assert way(nest) == nest


@pytest.mark.parametrize("entry", registry.ENTRIES, ids=lambda entry: entry.name)
def test_every_layer(entry):
    config = entry.config()
    text = base_layer_text(config)
    for way in (through_json, through_python):
        again = way(config)
        assert again == config
        assert base_layer_text(again) == text


def base_layer_text(config):
    from praxis import base_hyperparams

    return base_hyperparams.nested_struct_to_text(config)


CODE = """\
from praxis import pax_fiddle
from praxis.layers import linears
import fiddle as fdl
import jax.numpy as jnp
import praxis_serialized_examples


def make_config():
    linear_1 = pax_fiddle.Config(linears.Linear, input_dims=3)
    fdl.add_tag(linear_1, "dtype", tags.ActivationDType)
    return pax_fiddle.Config(
        praxis_serialized_examples.make,
        value=linear_1,
        other=[
            "a long text to fill up the line, so that it has to be broken",
            linear_1,
            jnp.bfloat16,
        ],
    )
"""


def test_code():
    linear = pax_fiddle.Config(linears.Linear, input_dims=3)
    fdl.add_tag(linear, "dtype", fiddle_tags.ActivationDType)
    long = "a long text to fill up the line, so that it has to be broken"
    config = pax_fiddle.Config(make, value=linear, other=[long, linear, jnp.bfloat16])
    expected = CODE.replace(
        "from praxis.layers", "from praxis.config import tags\nfrom praxis.layers"
    )
    assert inspection.config_to_python(config) == expected


def test_modules_of_one_name():
    other = types.ModuleType("praxis_serialized_pkg.linears")
    parent = types.ModuleType("praxis_serialized_pkg")
    parent.linears = other  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules.update({parent.__name__: parent, other.__name__: other})

    def made():
        pass

    made.__module__, made.__qualname__ = other.__name__, "made"
    other.made = made  # pyright: ignore[reportAttributeAccessIssue]
    config = pax_fiddle.Config(make, value=linears.Linear, other=made)
    assert through_python(config) == config


@pytest.mark.parametrize("write", [inspection.config_to_json, inspection.config_to_python])
@pytest.mark.parametrize("value", [lambda: None, object()], ids=["lambda", "object"])
def test_what_has_no_name_is_refused_with_its_place(write, value):
    config = pax_fiddle.Config(make, value={"k": [0, value]})
    with pytest.raises(ValueError, match=r"<config>\.value\['k'\]\[1\] holds .*cannot be written"):
        write(config)


def test_an_object_that_its_fields_do_not_make_is_refused():
    with pytest.raises(ValueError, match=r"<config>\.value holds Doubled\(size=6\), which cannot"):
        inspection.config_to_json(pax_fiddle.Config(make, value=Doubled(3)))


@pytest.mark.parametrize("text", ["", "[", "{}", '{"root": 1}', "null"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="This is not the JSON of a config"):
        inspection.config_from_json(text)


def test_a_missing_module_is_named():
    text = inspection.config_to_json(pax_fiddle.Config(make, value=jnp.tanh))
    with pytest.raises(ValueError, match=r"no 'tanhh' in the module 'jax.numpy'"):
        inspection.config_from_json(text.replace('"tanh"', '"tanhh"'))


def test_json_does_not_call_what_it_likes():
    """Reading runs no function that values of configs do not need."""
    text = inspection.config_to_json(pax_fiddle.Config(make, value=range(3)))
    assert '"range"' in text
    with pytest.raises(ValueError, match=r"The text calls <built-in function print>"):
        inspection.config_from_json(text.replace('"range"', '"print"'))


def test_json_is_indented_on_request():
    text = inspection.config_to_json(pax_fiddle.Config(make, value=1), indent=2)
    assert text.startswith('{\n  "root"')
    json.loads(text)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (jax.nn.silu, ("jax.nn", "silu")),
        (jnp.int8, ("jax.numpy", "int8")),
        (Color.RED, (HERE.__name__, "Color.RED")),
        (np, ("numpy", "")),
        (linears.Linear.config, ("praxis.layers.linears", "Linear.config")),
        (3, None),
    ],
)
def test_names(value, name):
    assert calls.import_name(value) == name
    if name:
        assert calls.resolve_import(*name) == value

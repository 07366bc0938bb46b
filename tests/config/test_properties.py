"""Properties of configs for generated trees of values (core behaviours 6, 8 and 18)."""

import copy
import dataclasses
import pickle
from typing import Any

import jax.numpy as jnp
import pytest
from fiddle.experimental import serialization
from hypothesis import example, given, settings
from hypothesis import strategies as st

from praxis import base_hyperparams, base_layer, pax_fiddle
from praxis.py_utils import NestedMap

few = settings(deadline=None, max_examples=30, derandomize=True)


@dataclasses.dataclass
class Record:
    """Takes anything."""

    first: Any = None
    second: Any = 3
    made: Any = pax_fiddle.instance_field(dict)


class Layer(base_layer.BaseLayer):
    """Takes anything, and a template."""

    value: Any = None
    part_tpl: pax_fiddle.Config | None = None


NAMES = st.sampled_from(["a", "b_1", "c"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text("abc'\"\\\n", max_size=4)
    | st.sampled_from([jnp.float32, jnp.bfloat16, Record, base_layer.WeightInit.Gaussian(0.5)])
)


def containers(children):
    records = st.dictionaries(st.sampled_from(["first", "second", "made"]), children)
    return (
        st.lists(children, max_size=3)
        | st.tuples(children, children)
        | st.dictionaries(NAMES, children, max_size=3)
        | st.dictionaries(NAMES, children, max_size=3).map(NestedMap)
        | records.map(lambda fields: pax_fiddle.Config(Record, **fields))
        | children.map(lambda value: pax_fiddle.Config(Layer, value=value))
    )


# Made here too, since the first use of a class draws random numbers for its type checks, which
# hypothesis does not allow while it generates.
ALL_KINDS = pax_fiddle.Config(
    Record, second=[pax_fiddle.Config(Layer, value=NestedMap(a=1))], made={"b": (1, None)}
)

VALUES = st.recursive(LEAVES, containers, max_leaves=6)
CONFIGS = VALUES.map(lambda value: pax_fiddle.Config(Record, first=value))

ROUND_TRIPS = {
    "json": lambda c: serialization.load_json(serialization.dump_json(c)),
    "pickle": lambda c: pickle.loads(pickle.dumps(c)),
    "deepcopy": copy.deepcopy,
    "clone": lambda c: c.clone(),
}


@pytest.mark.parametrize("round_trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
@few
@given(config=CONFIGS)
@example(config=ALL_KINDS)
def test_copies_are_equal_and_read_the_same(round_trip, config):
    """Behaviours 6 and 18."""
    again = round_trip(config)
    assert again == config and again is not config
    assert base_hyperparams.nested_struct_to_text(again) == (
        base_hyperparams.nested_struct_to_text(config)
    )


def change_everything(value):
    """Changes each config and container of a tree in place."""
    if isinstance(value, pax_fiddle.Config):
        for child in list(value.__arguments__.values()):
            change_everything(child)
        if value.cls is Record:
            value.second = "changed"
        elif value.cls is Layer:
            value.name = "changed"
    elif isinstance(value, dict):
        for child in list(value.values()):
            change_everything(child)
        value["new"] = 1
    elif isinstance(value, (list, tuple)):
        for child in value:
            change_everything(child)
        if isinstance(value, list):
            value.append("changed")


@few
@given(CONFIGS)
def test_nothing_done_to_a_clone_or_a_built_object_reaches_the_config(config):
    """Behaviour 6."""
    before = pickle.dumps(config)
    kept = pickle.loads(before)
    clone = config.clone()
    change_everything(clone)
    assert clone != config
    pax_fiddle.build(config)
    assert config == kept


@few
@given(CONFIGS)
def test_building_leaves_no_config_and_keeps_the_rest(config):
    """A value without configs comes out equal; configs become objects, wherever they are."""
    built = pax_fiddle.build(config)
    assert type(built) is Record

    def configs_in(value):
        if isinstance(value, pax_fiddle.Config):
            return True
        if isinstance(value, Record):
            return configs_in([value.first, value.second, value.made])
        if isinstance(value, base_layer.BaseLayer):
            return configs_in(value.value)
        children = value.values() if hasattr(value, "values") else value
        return isinstance(value, (dict, list, tuple)) and any(map(configs_in, children))

    assert not configs_in(built)
    assert pax_fiddle.build(config.clone()).first == built.first


@few
@given(VALUES)
def test_a_template_keeps_its_config(value):
    template = pax_fiddle.Config(Record, first=value)
    layer = pax_fiddle.build(pax_fiddle.Config(Layer, part_tpl=template))
    assert layer.part_tpl == template and layer.part_tpl is not template


@few
@given(VALUES, VALUES)
def test_copied_fields_equal_the_source(first, second):
    source = pax_fiddle.Config(Record, first=first, made={"a": second})
    target = pax_fiddle.Config(Record, second=second)
    target.copy_fields_from(source)
    assert target == source

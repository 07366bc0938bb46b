"""Configs as text (core behaviours 32 to 37)."""

import collections
import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core as flax_core
from flax import linen as nn

from praxis import base_hyperparams, base_layer, pax_fiddle
from praxis.config import text
from praxis.py_utils import NestedMap

to_text = base_hyperparams.nested_struct_to_text
Pair = collections.namedtuple("Pair", ["a", "b"])


class Kind(enum.Enum):
    ONE = 1


class Axis(enum.StrEnum):
    ROWS = "rows"


class Shown(base_hyperparams.StrOverride):
    def __str__(self):
        return "shown"


@dataclasses.dataclass
class Leaf:
    size: int = 5


@dataclasses.dataclass
class Sharding:
    wt: Any = None


class Layer(nn.Module):
    dtype: Any = jnp.float32
    leaf: Any = pax_fiddle.instance_field(Leaf)
    weight_split_dims_mapping: Any = pax_fiddle.instance_field(Sharding)
    made: list = dataclasses.field(default_factory=list)
    required: Any = dataclasses.field(kw_only=True)


def function():
    pass


def test_config_of_a_module():
    """Behaviour 32 on a toy layer."""
    assert to_text(pax_fiddle.Config(Layer, name="lm")) == (
        f"cls : type/{__name__}/Layer\n"
        "dtype : type/jax.numpy/float32\n"
        f"leaf.cls : type/{__name__}/Leaf\n"
        "leaf.size : 5\n"
        "made : <factory>\n"
        "name : 'lm'\n"
        "weight_split_dims_mapping.wt : NoneType\n"
    )


class Empty(base_layer.BaseLayer):
    """A layer without fields of its own."""


LAYER_LINES = """\
activation_split_dims_mapping.out : NoneType
cls : type/{module}/Empty
contiguous_submeshes : NoneType
dcn_mesh_shape : NoneType
dtype : type/jax.numpy/float32
fprop_dtype : {fprop_dtype}
ici_mesh_shape : NoneType
mesh_axis_names : NoneType
name : {name}
{params_init_class}params_init.method : 'xavier'
params_init.scale : 1.000001
shared_weight_layer_id : NoneType
skip_lp_regularization : NoneType
weight_split_dims_mapping.wt : NoneType
"""


def test_config_of_a_layer():
    """Behaviour 32."""
    init = base_layer.WeightInit
    assert to_text(pax_fiddle.Config(Empty)) == LAYER_LINES.format(
        module=__name__,
        fprop_dtype="NoneType",
        name="NoneType",
        params_init_class=f"params_init.cls : type/{init.__module__}/WeightInit\n",
    )


def test_hparams_of_a_layer():
    """Behaviour 33."""
    layer = pax_fiddle.Config(Empty, name="lm").Instantiate()
    assert to_text(layer.hparams) == LAYER_LINES.format(
        module=__name__,
        fprop_dtype="type/jax.numpy/float32",
        name="'lm'",
        params_init_class="",
    )


def test_built_module_has_no_class_lines_and_no_parent():
    """Behaviour 36."""
    layer = pax_fiddle.Config(Layer, required=1).Instantiate()
    config = pax_fiddle.Config(Leaf, size=Pair(layer, 2))
    assert to_text(config) == (
        f"cls : type/{__name__}/Leaf\n"
        "size[a].dtype : type/jax.numpy/float32\n"
        "size[a].leaf.size : 5\n"
        "size[a].name : NoneType\n"
        "size[a].required : 1\n"
        "size[a].weight_split_dims_mapping.wt : NoneType\n"
        "size[b] : 2\n"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, ""),
        ([], ""),
        (3, " : 3\n"),
        ({"b": {"c": 1}, "a": 2.5}, "a : 2.5\nb.c : 1\n"),
        (flax_core.FrozenDict(a={"b": True}), "a.b : True\n"),
        (NestedMap(a=NestedMap(b=1)), "a.b : 1\n"),
        (Pair(1, Pair(2, 3)), "[a] : 1\n[b][a] : 2\n[b][b] : 3\n"),
        ([Leaf(1)], " : ['Leaf']\n"),
        ([1, "a", None], " : [1, 'a', None]\n"),
        ((1, "a"), " : (1, 'a')\n"),
        ([jnp.float32], " : ['type/jax.numpy/float32']\n"),
        ([{"a": [None]}], " : [{'a': [None]}]\n"),
        (None, " : NoneType\n"),
        (Kind.ONE, " : Kind.ONE\n"),
        (Axis.ROWS, " : rows\n"),
        (Leaf, f" : type/{__name__}/Leaf\n"),
        (jnp.bfloat16, " : type/jax.numpy/bfloat16\n"),
        (np.float32, " : type/numpy/float32\n"),
        (function, f" : callable/{__name__}/function\n"),
        (np.array([1, 2]), " : [1, 2]\n"),
        (jnp.dtype("float32"), " : Float32DType\n"),
        (Shown(), " : shown\n"),
        (object(), " : object\n"),
        ("plain", " : 'plain'\n"),
        ("it's", ' : "it\'s"\n'),
        ("both ' and \"", " : 'both \\' and \"'\n"),
        ("back\\slash", " : 'back\\\\slash'\n"),
        ("two\nlines", " : 'two\nlines'\n"),
    ],
    # Addresses in the text of objects would differ between test processes.
    ids=lambda value: type(value).__name__,
)
def test_values(value, expected):
    """Behaviour 34."""
    assert to_text(value) == expected


def test_array_on_a_device_is_named_by_type():
    assert to_text({"a": jax.numpy.ones(2)}) == "a : ArrayImpl\n"


def test_lists_of_configs():
    """Behaviour 34."""
    config = pax_fiddle.Config(Leaf, size=3)
    cls = f"cls : type/{__name__}/Leaf\n"
    assert to_text([config]) == f"[0].{cls}[0].size : 3\n"
    assert to_text({"a": (config,)}) == f"a[0].{cls}a[0].size : 3\n"
    assert to_text({"a": [config, 1]}) == "a : ['<PaxConfig[Leaf(size=3)]>', 1]\n"


def test_types_and_separator():
    """Behaviour 34."""
    lines, types = to_text({"a": 1, "b": None}, include_types=True, separator="=")
    assert lines == "a = 1\nb = NoneType\n"
    assert types == {"a": "int", "b": "NoneType"}


def test_function_config():
    assert to_text(pax_fiddle.Config(function)) == f"cls : callable/{__name__}/function\n"


def test_circular_reference():
    """Behaviour 35."""
    values: dict = {"a": {}}
    values["a"]["b"] = values
    with pytest.raises(ValueError, match=r"Circular reference.*'a\.b'"):
        to_text(values)


def test_shared_object():
    """Behaviour 35."""
    shared = {"x": 1}
    assert to_text({"a": shared, "b": shared}) == "a.x : 1\nb.x : 1\n"


def visit(value, enter=None):
    seen = []
    base_hyperparams.visit_nested_struct(
        value,
        lambda key, leaf: seen.append(("visit", key, leaf)),
        enter and (lambda key, node: seen.append(("enter", key)) or enter(key)),
        lambda key, node: seen.append(("exit", key)),
    )
    return seen


def test_visit_order():
    """Behaviour 37."""
    assert visit({"b": {"c": 1}, "a": 2}) == [
        ("visit", "b.c", 1),
        ("exit", "b"),
        ("visit", "a", 2),
        ("exit", ""),
    ]


def test_node_that_is_not_entered_is_a_leaf():
    """Behaviour 37."""
    assert visit({"b": {"c": 1}}, enter=lambda key: key != "b") == [
        ("enter", ""),
        ("enter", "b"),
        ("visit", "b", {"c": 1}),
        ("exit", ""),
    ]


def test_class_of_a_config_is_a_leaf():
    assert visit(pax_fiddle.Config(Leaf))[:2] == [("visit", "cls", Leaf), ("visit", "size", 5)]


def test_diff_shows_changed_lines():
    config = pax_fiddle.Config(Leaf)
    assert text.diff_text(config, config.clone()) == ""
    assert text.diff_text(config, config.clone().set(size=6)) == "- size : 5\n+ size : 6\n"

"""Configs: arguments, copies, equality (core behaviours 1 to 8, 11, 12, 18)."""

import copy
import dataclasses
import pickle
from typing import Annotated, Any

import fiddle as fdl
import jax.numpy as jnp
import numpy as np
import pytest
from fiddle.experimental import serialization
from flax import linen as nn

from praxis import fiddle_tags, pax_fiddle
from praxis.py_utils import NestedMap


@dataclasses.dataclass
class Leaf:
    size: int = 5
    dtype: Any = jnp.float32


@dataclasses.dataclass
class Tree:
    required: int
    rate: float = pax_fiddle.field(default=0.5, tags=fiddle_tags.DropoutRate)
    leaf: Leaf = pax_fiddle.instance_field(Leaf)
    other: Any = None
    made: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Dense:
    dtype: Any = pax_fiddle.field(default=jnp.float32, tags=fiddle_tags.ParamsDType)
    fprop_dtype: Any = pax_fiddle.field(default=None, tags=[fiddle_tags.ActivationDType])
    leaf: Leaf = pax_fiddle.instance_field(Leaf)


class Layer(nn.Module):
    dims: int = 0
    ici_mesh_shape: Any = None
    dcn_mesh_shape: Any = None
    mesh_axis_names: Any = None

    @staticmethod
    def copy_base_hparams(source, target):
        pass


def test_reads_writes_and_deletes():
    """Behaviour 1."""
    config = pax_fiddle.Config(Leaf, size=1)
    assert (config.size, config.dtype) == (1, jnp.float32)
    config.size = 3
    assert config.size == 3
    del config.size
    assert config.size == 5


def test_unknown_keyword_is_refused_at_once():
    """Behaviour 2."""
    with pytest.raises(TypeError, match=r"(?s)Leaf.*'zzz'"):
        pax_fiddle.Config(Leaf, zzz=1)


def test_near_name_is_suggested():
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'sise'.*did you mean 'size'\?"
    ):
        pax_fiddle.Config(Leaf, sise=1)


def test_unknown_field_write():
    """Behaviour 3."""
    config = pax_fiddle.Config(Leaf)
    text = r"^Leaf has no field 'sizes'; did you mean 'size'\? Valid names: size, dtype\.$"
    with pytest.raises(AttributeError, match=text):
        config.sizes = 1


def test_set_checks_all_names_before_it_sets_any():
    """Behaviour 3."""
    config = pax_fiddle.Config(Leaf)
    with pytest.raises(AttributeError, match=r"Leaf has no field 'zzz'\. Valid names: size, dtype"):
        config.set(size=7, zzz=1)
    assert config.size == 5


def test_unknown_and_unset_reads():
    """Behaviour 4."""
    config = pax_fiddle.Config(Tree)
    with pytest.raises(AttributeError, match="Tree has no field 'zzz'"):
        _ = config.zzz
    with pytest.raises(AttributeError, match=r"Tree\.required is required and has not been set"):
        _ = config.required
    with pytest.raises(ValueError, match=r"Tree\.made is not set.*default_factory"):
        _ = config.made
    assert not hasattr(config, "__unknown_protocol__")


def test_method_of_the_class_is_not_a_field():
    with pytest.raises(AttributeError, match=r"has an attribute of that name: build the config"):
        _ = pax_fiddle.Config(Layer).setup


def test_set_is_chainable():
    """Behaviour 5."""
    config = pax_fiddle.Config(Leaf)
    assert config.set(size=2).Set(dtype=jnp.bfloat16) is config
    assert (config.size, config.dtype) == (2, jnp.bfloat16)


def test_clone_is_independent_and_keeps_sharing():
    """Behaviour 6."""
    shared = pax_fiddle.Config(Leaf)
    config = pax_fiddle.Config(Tree, required=1, leaf=shared, other=[shared, {"key": [1]}])
    cloned = config.clone()
    assert cloned == config and cloned is not config
    assert cloned.leaf is not config.leaf and cloned.other is not config.other
    assert cloned.other[1]["key"] is not config.other[1]["key"]
    assert cloned.other[0] is cloned.leaf


def test_clone_copies_unknown_objects_and_shares_immutable_ones():
    array, unknown, pair = np.arange(3), Leaf(2), (1, "a")
    config = pax_fiddle.Config(Tree, required=pair, other=[array, unknown, unknown, {3}])
    cloned = config.clone()
    assert cloned.required is pair and cloned.other[0] is array
    assert cloned.other[1] == unknown and cloned.other[1] is not unknown
    assert cloned.other[1] is cloned.other[2]
    assert cloned.other[3] is not config.other[3]


def test_clone_copies_what_tuples_and_nested_maps_hold():
    leaf = pax_fiddle.Config(Leaf)
    config = pax_fiddle.Config(Tree, required=(leaf, 1), other=NestedMap(leaf=leaf))
    cloned = config.clone()
    assert cloned.required[0] is cloned.other.leaf
    assert cloned.required[0] is not leaf
    assert type(cloned.other) is NestedMap


def test_tags_and_history_of_a_clone_are_its_own():
    config = pax_fiddle.Config(Tree)
    cloned = config.clone()
    fdl.add_tag(cloned, "other", fiddle_tags.WeightInit)
    assert fdl.get_tags(config, "other") == frozenset()
    cloned.other = 3
    assert len(config.__argument_history__["other"]) < len(cloned.__argument_history__["other"])


def test_shallow_copy_shares_sub_configs():
    """Behaviour 7."""
    config = pax_fiddle.Config(Tree)
    copied = copy.copy(config)
    assert copied.leaf is config.leaf
    copied.rate = 0.1
    assert config.rate == 0.5
    assert pax_fiddle.copy_with(config, rate=0.2).leaf is config.leaf
    assert pax_fiddle.deepcopy_with(config, rate=0.2).leaf is not config.leaf


def test_equality_counts_defaults():
    """Behaviour 8."""
    assert pax_fiddle.Config(Leaf) == pax_fiddle.Config(Leaf, size=5)
    assert pax_fiddle.Config(Leaf) != pax_fiddle.Config(Leaf, size=4)
    assert pax_fiddle.Config(Leaf) != pax_fiddle.Config(Dense)
    assert pax_fiddle.Config(Leaf) != fdl.Config(Leaf)
    assert pax_fiddle.Config(Leaf) != pax_fiddle.Partial(Leaf)
    assert pax_fiddle.Config(Tree) != pax_fiddle.Config(Tree, required=1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(pax_fiddle.Config(Leaf))


def test_equality_sees_sharing_and_arrays():
    def pair(same):
        leaf = pax_fiddle.Config(Leaf)
        other = leaf if same else pax_fiddle.Config(Leaf)
        return pax_fiddle.Config(Tree, leaf=leaf, other=[other, np.arange(3)])

    assert pair(True) == pair(True)
    assert pair(True) != pair(False)
    assert pair(False) != pair(True)
    assert pair(False) == pair(False)
    assert pair(False) != pair(False).set(other=[pax_fiddle.Config(Leaf), np.arange(4)])


def test_equality_of_a_deep_config_is_linear():
    def chain():
        config = pax_fiddle.Config(Tree)
        for _ in range(60):
            config = pax_fiddle.Config(Tree, other=config)
        return config

    assert chain() == chain()


def test_tags_of_fields():
    """Behaviour 11."""
    config = pax_fiddle.Config(Tree, other=[pax_fiddle.Config(Dense)])
    assert fdl.get_tags(config, "rate") == {fiddle_tags.DropoutRate}
    fdl.set_tagged(config, tag=fiddle_tags.BaseDType, value=jnp.bfloat16)
    assert (config.other[0].dtype, config.other[0].fprop_dtype) == (jnp.bfloat16, jnp.bfloat16)
    fdl.set_tagged(config, tag=fiddle_tags.DropoutRate, value=0.25)
    assert config.rate == 0.25


def test_tags_in_annotations():
    def scale(rate: Annotated[float, fiddle_tags.DropoutRate, "text"] = 0.5):
        return rate

    assert fdl.get_tags(pax_fiddle.Config(scale), "rate") == {fiddle_tags.DropoutRate}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"dcn_mesh_shape": [2, 3], "mesh_axis_names": ["a", "b"]}, None),
        ({"ici_mesh_shape": [2, 3], "mesh_axis_names": ["a", "b"]}, [2, 3]),
        (
            {
                "ici_mesh_shape": [2, 3],
                "dcn_mesh_shape": [5, 7],
                "mesh_axis_names": ["a", "b"],
            },
            [10, 21],
        ),
    ],
)
def test_mesh_shape(fields, expected):
    """Behaviour 12."""
    assert pax_fiddle.Config(Layer, **fields).mesh_shape == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"ici_mesh_shape": [2, 3], "mesh_axis_names": ["a"]},
        {"ici_mesh_shape": [2, 3], "dcn_mesh_shape": [1], "mesh_axis_names": ["a", "b"]},
        {"ici_mesh_shape": [2, 3]},
    ],
)
def test_mesh_shape_of_other_length(fields):
    """Behaviour 12."""
    with pytest.raises(ValueError, match=r"Layer: one entry for each mesh axis.*ici_mesh_shape"):
        _ = pax_fiddle.Config(Layer, **fields).mesh_shape


def test_mesh_shape_of_other_classes():
    with pytest.raises(AttributeError, match="Leaf has no field 'mesh_shape'"):
        _ = pax_fiddle.Config(Leaf).mesh_shape


def test_layers_take_no_positional_arguments():
    with pytest.raises(TypeError, match="Layer is a layer and takes no positional arguments"):
        pax_fiddle.Config(Layer, 3)
    assert pax_fiddle.Config(Leaf, 3).size == 3


def test_positional_and_variadic_arguments_of_functions():
    def function(first, /, second, *rest, **named):
        return first, second, rest, named

    config = pax_fiddle.Config(function, 1, 2, 3, 4, extra=5)
    assert (config[0], config.second, config.extra) == (1, 2, 5)
    assert pax_fiddle.build(config) == (1, 2, (3, 4), {"extra": 5})


def test_config_of_a_config_is_refused():
    with pytest.raises(ValueError, match="convert a buildable"):
        pax_fiddle.Config(pax_fiddle.Config(Leaf))


def test_repr_shows_set_arguments_only():
    assert repr(pax_fiddle.Config(Leaf, size=3)) == "<PaxConfig[Leaf(size=3)]>"


@pytest.mark.parametrize(
    "round_trip",
    [
        copy.deepcopy,
        lambda config: pickle.loads(pickle.dumps(config)),
        lambda config: serialization.load_json(serialization.dump_json(config)),
    ],
    ids=["deepcopy", "pickle", "json"],
)
def test_round_trips(round_trip):
    """Behaviour 18."""
    config = pax_fiddle.Config(
        Tree, required=3, other=NestedMap(leaf=pax_fiddle.Config(Leaf, dtype=jnp.bfloat16))
    )
    result = round_trip(config)
    assert result == config and type(result) is pax_fiddle.Config
    assert type(result.other) is NestedMap and result.other.leaf.dtype == jnp.bfloat16
    assert fdl.get_tags(result, "rate") == {fiddle_tags.DropoutRate}
    result.other.leaf.size = 2
    assert config.other.leaf.size == 5


def test_history_does_not_name_lines_of_the_package():
    config = pax_fiddle.Config(Tree)
    config.rate = 0.1
    config.set(rate=0.2)
    for entry in (*config.__argument_history__["rate"], *config.__argument_history__["leaf"]):
        assert "praxis/config" not in entry.location.filename


def test_clone_and_set_mixin():
    class Settings(pax_fiddle.CloneAndSetMixin):
        def __init__(self):
            self.values = [1]
            self.name, self.size = "", 0

    settings = Settings()
    cloned = settings.clone().set(name="a").Set(size=2)
    assert (cloned.name, cloned.size, cloned.values) == ("a", 2, [1])
    assert cloned.values is not settings.values

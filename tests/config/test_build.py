"""Building configs (core behaviours 13 to 17, 25, 26 and inheritance)."""

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from praxis import base_hyperparams, pax_fiddle
from praxis.config import module_stack
from praxis.py_utils import NestedMap

Pair = collections.namedtuple("Pair", ["left", "right"])


@dataclasses.dataclass
class Leaf:
    size: int = 5


@dataclasses.dataclass
class Tree:
    leaf: Any = pax_fiddle.instance_field(Leaf)
    leaf_tpl: pax_fiddle.Config[Leaf] = pax_fiddle.template_field(Leaf)
    others: Any = None


@dataclasses.dataclass
class Strict:
    needed: int


@dataclasses.dataclass
class Layer:
    """A toy layer: `dtype` is inherited when it is None."""

    dtype: Any = None
    child: Any = None
    child_tpl: pax_fiddle.Config | None = None

    @staticmethod
    def copy_base_hparams(source, target):
        if target.dtype is None:
            target.dtype = source.dtype


def test_instantiate_overrides_a_copy():
    """Behaviour 13."""
    config = pax_fiddle.Config(Leaf, size=1)
    assert config.Instantiate(size=2) == Leaf(2)
    assert config.size == 1
    built = Leaf(9)
    assert pax_fiddle.Config(Tree).Instantiate(leaf=built).leaf is built
    assert pax_fiddle.Config(Tree).Instantiate(leaf=config).leaf == Leaf(1)
    with pytest.raises(AttributeError, match="Leaf has no field 'zzz'"):
        config.Instantiate(zzz=1)
    with pytest.raises(TypeError, match=r"'size'.*no config"):
        pax_fiddle.instantiate(Leaf(), size=1)


def test_all_spellings_build_the_same():
    """Behaviour 14."""
    config = pax_fiddle.Config(Tree)
    built = [
        config.Instantiate(),
        pax_fiddle.instantiate(config),
        pax_fiddle.build(config),
        base_hyperparams.instantiate(config),
    ]
    assert all(tree == built[0] for tree in built)
    assert built[0] == Tree()


def test_values_without_configs_are_returned_as_they_are():
    """Behaviour 15."""
    assert pax_fiddle.build(3) == 3
    values = [1, {"a": 2}]
    assert pax_fiddle.build(values) is values


def test_nests_of_configs():
    """Behaviour 15."""
    config = pax_fiddle.Config(Leaf)
    built = pax_fiddle.build([config, {"a": (config, 1)}, NestedMap(b=config), Pair(config, 2)])
    leaf = built[0]
    assert leaf == Leaf()
    assert built == [leaf, {"a": (leaf, 1)}, NestedMap(b=leaf), Pair(leaf, 2)]
    assert built[1]["a"][0] is leaf and built[2].b is leaf and built[3].left is leaf
    assert type(built[2]) is NestedMap and type(built[3]) is Pair


def test_unknown_configuration_type():
    """Behaviour 15."""
    with pytest.raises(ValueError, match="Unknown configuration type int"):
        base_hyperparams.instantiate(3)


def test_missing_argument_names_path_and_class():
    """Behaviour 16."""
    config = pax_fiddle.Config(Tree, others=[1, {"key": pax_fiddle.Config(Strict)}])
    with pytest.raises(TypeError, match=r"(?s)'needed'.*Strict at <root>\.others\[1\]\['key'\]"):
        pax_fiddle.build(config)


def test_shared_config_gives_one_object_in_each_build():
    """Behaviour 17."""
    leaf = pax_fiddle.Config(Leaf)
    config = pax_fiddle.Config(Tree, leaf=leaf, others=[leaf])
    first, second = pax_fiddle.build(config), pax_fiddle.build(config)
    assert first.leaf is first.others[0]
    assert first.leaf is not second.leaf


def test_build_changes_nothing_in_the_config():
    config = pax_fiddle.Config(Layer, dtype=jnp.bfloat16, child=[pax_fiddle.Config(Layer)])
    before = config.clone()
    pax_fiddle.build(config)
    assert config == before
    assert "dtype" not in config.child[0].__arguments__


def test_built_objects_share_no_config_or_container_with_the_caller():
    config = pax_fiddle.Config(Tree, others=[1])
    built = pax_fiddle.build(config)
    assert built.leaf_tpl == config.leaf_tpl and built.leaf_tpl is not config.leaf_tpl
    built.others.append(2)
    assert config.others == [1]


def test_templates_share_objects_that_are_not_configs():
    token = object()
    config = pax_fiddle.Config(Tree, leaf_tpl=pax_fiddle.Config(Leaf, size=token))
    assert pax_fiddle.build(config).leaf_tpl.size is token


def test_one_config_as_instance_and_template():
    leaf = pax_fiddle.Config(Leaf)
    built = pax_fiddle.build(pax_fiddle.Config(Tree, leaf=leaf, leaf_tpl=leaf))
    assert built.leaf == Leaf() and built.leaf_tpl == leaf


def test_template_in_an_untyped_field_is_built():
    """Behaviour 25, the part of the config."""
    assert (
        pax_fiddle.build(pax_fiddle.Config(Tree, others=pax_fiddle.Config(Leaf))).others == Leaf()
    )


def test_untyped_field_with_the_name_of_a_template_warns():
    @dataclasses.dataclass
    class Untyped:
        leaf_tpl: Any = pax_fiddle.template_field(Leaf)

    with pytest.warns(UserWarning, match=r"Untyped\.leaf_tpl is built with its owner"):
        assert pax_fiddle.build(pax_fiddle.Config(Untyped)).leaf_tpl == Leaf()


def test_inside_of_a_template_is_left_alone():
    """Behaviour 26."""
    config = pax_fiddle.Config(Layer, child_tpl=pax_fiddle.Config(Tree))
    built = pax_fiddle.build(config)
    assert built.child_tpl == pax_fiddle.Config(Tree)
    assert pax_fiddle.build(built.child_tpl).leaf == Leaf()


def test_cycle_is_refused():
    config = pax_fiddle.Config(Tree)
    config.others = [config]
    with pytest.raises(ValueError, match=r"contains itself at <root>\.others\[0\]"):
        pax_fiddle.build(config)


def test_layers_inherit_from_the_nearest_layer():
    child = pax_fiddle.Config(Layer)
    pinned = pax_fiddle.Config(Layer, dtype=jnp.int8, child=pax_fiddle.Config(Layer))
    between = pax_fiddle.Config(Tree, others=[child, {"key": pinned}])
    built = pax_fiddle.build(pax_fiddle.Config(Layer, dtype=jnp.bfloat16, child=between))
    first, second = built.child.others[0], built.child.others[1]["key"]
    assert first.dtype == jnp.bfloat16
    assert (second.dtype, second.child.dtype) == (jnp.int8, jnp.int8)


def test_templates_do_not_inherit_when_their_holder_is_built():
    config = pax_fiddle.Config(Layer, dtype=jnp.int8, child_tpl=pax_fiddle.Config(Layer))
    assert pax_fiddle.build(config).child_tpl.dtype is None


def test_the_three_steps_make_a_build():
    config = pax_fiddle.Config(
        Layer,
        dtype=jnp.int8,
        child=pax_fiddle.Config(Layer),
        child_tpl=pax_fiddle.Config(Layer),
    )
    wrapped = pax_fiddle.wrap_templates(config)
    assert isinstance(wrapped.child_tpl, pax_fiddle.TemplateWrapper)
    assert wrapped.child_tpl() is wrapped.child_tpl.template
    inherited = pax_fiddle.copy_inheritable_base_layer_params(wrapped)
    assert (wrapped.child.dtype, inherited.child.dtype) == (None, jnp.int8)
    built = pax_fiddle.build_with_empty_flax_module_stack(inherited)
    assert built == pax_fiddle.build(config)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(3, name="dense")(inputs)


class Holder(nn.Module):
    inner: Any = pax_fiddle.instance_field(Inner)

    def __call__(self, inputs):
        return self.inner(inputs)


class Outer(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return pax_fiddle.build(pax_fiddle.Config(Holder, name="holder"))(inputs)


def test_root_belongs_to_the_running_module_and_arguments_to_the_root():
    variables = Outer().init(jax.random.PRNGKey(0), jnp.ones([1, 2]))
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes["holder"]["inner"]["dense"]["kernel"] == (2, 3)


def test_module_stack_is_restored():
    running = module_stack.flax_module._context
    before = running.module_stack
    with pytest.raises(KeyError), pax_fiddle.empty_flax_module_stack():
        assert running.module_stack == [None]
        raise KeyError
    assert running.module_stack is before


def test_nested_builds_are_allowed():
    @dataclasses.dataclass
    class Building:
        made: Any = None

        def __post_init__(self):
            self.made = pax_fiddle.build(pax_fiddle.Config(Leaf))

    assert pax_fiddle.build(pax_fiddle.Config(Building)).made == Leaf()

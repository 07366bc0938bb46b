"""Layers inside layers inside layers, and layers that share (core behaviours 43 to 54, 91, 95)."""

import copy
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from praxis import base_layer, pax_fiddle
from praxis.base_layer import BaseLayer, WeightHParams, WeightInit, instance_field, template_field
from praxis.layers import repeats

KEY = jax.random.PRNGKey(0)
X = jnp.ones([3])
LayerTpl = pax_fiddle.Config[BaseLayer]
ONE = WeightInit.Constant(1.0)


class Leaf(BaseLayer):
    """Multiplies by a variable."""

    def setup(self) -> None:
        self.create_variable("w", WeightHParams([3], init=ONE))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.theta.w


class Node(BaseLayer):
    """Holds layers in every way."""

    one_tpl: LayerTpl | None = template_field(None)
    list_tpls: list[LayerTpl] = instance_field(list)
    one: Any = instance_field(None)
    many: list[Any] = instance_field(list)

    def setup(self) -> None:
        if self.one_tpl is not None:
            self.create_child("made", self.one_tpl)
        self.create_children("row", self.list_tpls)

    def __call__(self, x: jax.Array) -> jax.Array:
        made = [self.made] if self.one_tpl is not None else []
        held = [self.one] if self.one is not None else []
        for layer in (*made, *self.row, *held, *self.many):
            x = layer(x)
        return x


def family(levels, **fields):
    """A config of nested nodes with a leaf in each place."""
    config = pax_fiddle.Config(Node, **fields)
    for place in range(4):
        child = family(levels - 1) if levels > 1 else pax_fiddle.Config(Leaf)
        match place:
            case 0:
                config.one_tpl = child
            case 1:
                config.list_tpls = [child]
            case 2:
                config.one = child
            case 3:
                config.many = [child]
    return config


def nodes(tree, path=""):
    yield path, tree["_hparams"]
    for name, sub in tree.items():
        if name != "_hparams":
            yield from nodes(sub, f"{path}/{name}")


MESH = {
    "ici_mesh_shape": [2, 3],
    "dcn_mesh_shape": [1, 2],
    "mesh_axis_names": ["data", "mdl"],
    "contiguous_submeshes": True,
}


def test_two_levels_inherit_through_every_place():
    """Behaviours 50 and 54."""
    init = WeightInit.Gaussian(0.3)
    fields = {
        "dtype": jnp.bfloat16,
        "fprop_dtype": jnp.float16,
        "params_init": init,
        "skip_lp_regularization": True,
        **MESH,
    }
    layer = family(2, name="root", **fields).Instantiate()
    found = dict(nodes(layer.abstract_init_with_mdl_config(X)))
    places = ("made", "row_0", "one", "many_0")
    assert set(found) == {
        "",
        *(f"/{a}" for a in places),
        *(f"/{a}/{b}" for a in places for b in places),
    }
    for config in found.values():
        assert (config.dtype, config.fprop_dtype) == (jnp.bfloat16, jnp.float16)
        assert (config.params_init, config.skip_lp_regularization) == (init, True)
        for name, value in MESH.items():
            got = getattr(config, name)
            assert (got if isinstance(value, bool) else list(got)) == value


def test_nearest_ancestor_decides():
    """Behaviour 50."""
    root = family(2, name="root", skip_lp_regularization=True)
    root.one.skip_lp_regularization = False
    root.one_tpl.skip_lp_regularization = False
    found = dict(nodes(root.Instantiate().abstract_init_with_mdl_config(X)))
    pinned = {path for path, config in found.items() if config.skip_lp_regularization is False}
    assert pinned == {path for path in found if path.startswith(("/one", "/made"))}


def test_shared_id_and_shardings_are_not_inherited():
    """Behaviour 52."""
    root = family(1, name="root", shared_weight_layer_id="mine")
    root.activation_split_dims_mapping.out = ["data"]
    found: dict[str, Any] = dict(nodes(root.Instantiate().abstract_init_with_mdl_config(X)))
    for path in ("/made", "/one", "/many_0"):
        assert found[path].shared_weight_layer_id is None
        assert found[path].activation_split_dims_mapping.out is None


def test_children_are_attributes_in_setup_and_results_in_compact_methods():
    """Behaviour 46: an empty list gives an empty tuple."""
    seen: dict[str, Any] = {}

    class Looks(Node):
        def __call__(self, x: jax.Array) -> jax.Array:
            seen.update(made=self.made, row=self.row, path=self.made.path)
            return self.made(x)

    layer = Looks.config(name="net", one_tpl=Leaf.config()).Instantiate()
    assert list(layer.init(KEY, X)["params"]) == ["made"]
    assert isinstance(seen["made"], Leaf) and seen["row"] == ()
    assert (seen["made"].name, seen["path"]) == ("made", ("made",))


@pytest.mark.parametrize("order", ["child first", "variable first"])
def test_child_and_variable_of_one_name(order):
    """Behaviour 47."""

    class Clash(BaseLayer):
        def setup(self) -> None:
            steps = [
                lambda: self.create_child("a", Leaf.config()),
                lambda: self.create_variable("a", WeightHParams([1])),
            ]
            for step in steps if order == "child first" else reversed(steps):
                step()

        def __call__(self):
            return None

    with pytest.raises((AttributeError, flax.errors.NameInUseError), match=r"(?i)Clash.*\bname"):
        Clash.config(name="net").Instantiate().init(KEY)


def test_child_outside_setup_and_compact_methods():
    """Behaviour 48."""

    class Late(BaseLayer):
        def __call__(self) -> None:
            self.create_child("a", Leaf.config())

    with pytest.raises(flax.errors.AssignSubModuleError, match="Leaf must be defined in `setup"):
        Late.config(name="net").Instantiate().init(KEY)


@pytest.mark.parametrize("place", ["template", "instance", "direct"])
def test_float32_as_text_stays_under_another_dtype(place):
    """Behaviour 51: float32 itself counts as unset; computation follows the parent."""
    both = {"dtype": jnp.bfloat16, "fprop_dtype": jnp.bfloat16}
    config = Node.config(name="net", **both, one_tpl=Leaf.config())
    if place == "template":
        config.one_tpl = Node.config(dtype="float32", one=Leaf.config())
    elif place == "instance":
        config.one = Node.config(dtype="float32", one_tpl=Leaf.config())
    else:
        config.one = Node(dtype="float32", one_tpl=pax_fiddle.Config(Leaf))
    layer = config.Instantiate()
    x = X.astype(jnp.bfloat16)
    shapes = jax.tree.map(lambda w: str(w.dtype), layer.init(KEY, x)["params"])
    name, inner = {"template": ("made", "one")}.get(place, ("one", "made"))
    assert shapes[name] == {inner: {"w": "float32"}}
    assert place == "template" or shapes["made"] == {"w": "bfloat16"}
    assert layer.apply(layer.init(KEY, x), x).dtype == jnp.bfloat16
    meta = layer.abstract_init_with_metadata(x)["params"][name][inner]["w"]
    assert meta.dtype == jnp.float32 and not isinstance(meta.dtype, str)


class Shares(BaseLayer):
    """Owners at two depths, one id."""

    def setup(self) -> None:
        shared = Leaf.config(shared_weight_layer_id="one")
        self.create_child("near", shared)
        self.create_child("far", Node.config(one_tpl=shared))

    def __call__(self, x: jax.Array) -> jax.Array:
        assert self.far.made is self.near
        return self.far(self.near(x))


@pytest.mark.parametrize("with_context", [True, False])
def test_shared_layer_is_one_object_under_the_root(with_context):
    """Behaviour 91: at any depth, in init and apply, with a JaxContext and without."""
    layer = Shares.config(name="net").Instantiate()

    def run():
        variables = layer.init(KEY, X)
        assert jax.tree.map(jnp.shape, variables) == {"params": {"one": {"w": (3,)}}}
        doubled = jax.tree.map(lambda w: 2 * w, variables)
        np.testing.assert_array_equal(layer.apply(doubled, X), 4 * X)

    if with_context:
        with base_layer.JaxContext.new_context():
            run()
    else:
        run()


def test_shared_layer_inside_a_loop_is_another_one():
    """Behaviour 91: a loop has its own root."""

    class Loops(Shares):
        def setup(self) -> None:
            super().setup()
            self.create_child("loop", repeats.Repeat.config(sub_tpl=Shares.config(), x_times=2))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.loop(super().__call__(x))

    shapes = jax.tree.map(jnp.shape, Loops.config(name="net").Instantiate().init(KEY, X)["params"])
    assert shapes == {"one": {"w": (3,)}, "loop": {"sub": {"one": {"w": (2, 3)}}}}


class Serves(Leaf):
    """Serves its weight in another form."""

    def quantize_weight(self):
        return {"params": {"w_int8": jnp.int8(self.theta.w)}}

    def quantized_partition_specs(self):
        return {"params": {"w_int8": base_layer.BoxedPartitionSpec(meta=None)}}


def test_serving_trees_follow_the_children():
    """Behaviour 95: overrides count, also in lists; children that never run are skipped."""
    config = Node.config(name="net", one=Leaf.config(), many=[Serves.config()])
    layer = config.Instantiate()
    variables = layer.init(KEY, X)
    weights, _ = layer.apply(variables, method=layer.quantize_weight, mutable=[])
    assert jax.tree.map(lambda w: str(w.dtype), weights["params"]) == {
        "one": {"w": "float32"},
        "many_0": {"w_int8": "int8"},
    }
    specs, _ = layer.apply(variables, method=layer.quantized_partition_specs, mutable=[])
    assert specs["params"].keys() == {"one", "many_0"}
    assert list(specs["params"]["one"]["w"].meta) == [None]


def test_serving_trees_of_a_loop():
    """Behaviour 95: one more entry in front."""
    layer = repeats.Repeat.config(name="net", sub_tpl=Leaf.config(), x_times=2).Instantiate()
    variables = layer.init(KEY, X)
    weights, _ = layer.apply(variables, method=layer.quantize_weight, mutable=[])
    assert weights["params"]["sub"]["w"].shape == (2, 3)
    specs, _ = layer.apply(variables, method=layer.quantized_partition_specs, mutable=[])
    assert list(specs["params"]["sub"]["w"].meta) == [None, None]


def test_hparams_hold_no_parent_and_copy_deeply():
    """Behaviour 43: inside a call too."""
    found = []

    class Gives(Leaf):
        def __call__(self, x: jax.Array) -> jax.Array:
            found.append(copy.deepcopy(self.hparams))
            return x

    Node.config(one=Gives.config(), dtype=jnp.bfloat16).Instantiate().init(KEY, X)
    (hparams,) = found
    assert "parent" not in hparams.__arguments__
    assert (hparams.name, hparams.dtype) == ("one", jnp.bfloat16)


def test_layer_made_in_setup_takes_the_attribute_as_its_name():
    """Behaviours 42 and 44: it inherits too."""

    class Assigns(BaseLayer):
        def setup(self) -> None:
            self.inner = Leaf.config().Instantiate()
            self.other = Leaf.config(name="x").Instantiate()

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.other(self.inner(x))

    layer = Assigns.config(name="net", fprop_dtype=jnp.bfloat16).Instantiate()
    variables = layer.init(KEY, X)
    assert set(variables["params"]) == {"inner", "x"}
    assert layer.apply(variables, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_both_dtypes_inside_a_compact_parent():
    """Behaviour 42: where the new layer is frozen at once."""

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            fields = {"dtype": jnp.float32, "fprop_dtype": jnp.bfloat16}
            layers = [Leaf.config(**some).Instantiate() for some in ({}, fields)]
            return [(layer.dtype, layer.fprop_dtype, layer(x).dtype) for layer in layers]

    (plain, mixed), _ = Plain().init_with_output(KEY, X.astype(jnp.bfloat16))
    assert plain[:2] == (jnp.float32, jnp.float32)
    assert mixed == (jnp.float32, jnp.bfloat16, jnp.bfloat16)

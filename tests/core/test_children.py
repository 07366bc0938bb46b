"""Children, inheritance and shared layers (behaviours 40-54, 83, 91, 92, 95, 99)."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from praxis import base_layer, pax_fiddle
from praxis.base_layer import BaseLayer, WeightHParams, WeightInit, instance_field, template_field

KEY = jax.random.PRNGKey(0)
LayerTpl = pax_fiddle.Config[BaseLayer]


class Scale(BaseLayer):
    """Multiplies by a number."""

    start: float = 2.0

    def setup(self) -> None:
        self.create_variable("s", WeightHParams([], init=WeightInit.Constant(self.start)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.theta.s


class Nest(BaseLayer):
    """A child of each kind."""

    made_tpl: LayerTpl = template_field(Scale)
    held: BaseLayer = instance_field(Scale)
    many: list[BaseLayer] = instance_field(list)
    named: dict[str, BaseLayer] = instance_field(dict)
    run_all: bool = True

    def setup(self) -> None:
        self.create_child("made", self.made_tpl)
        self.create_children("row", [self.made_tpl] * 2)
        self.create_children("none", [])

    def __call__(self, x: jax.Array) -> jax.Array:
        layers = [self.made, *self.row, self.held, *self.many, *self.named.values()]
        for layer in layers if self.run_all else layers[:1]:
            x = layer(x)
        return x


def nest(**fields):
    config = Nest.config(name="nest", **fields)
    config.many = [Scale.config(name="ignored")]
    config.named = {"k": Scale.config()}
    return config


def configs(config):
    """Config of each layer after everything was inherited, by path."""
    flat = {}

    def walk(tree, path):
        flat[path] = tree.pop("_hparams")
        for name, sub in tree.items():
            walk(sub, f"{path}/{name}".strip("/"))

    walk(config.Instantiate().abstract_init_with_mdl_config(jnp.ones(3)), "")
    return flat


CHILDREN = ["made", "row_0", "row_1", "held", "many_0", "named_k"]


def test_names_in_variable_paths():
    """Behaviours 46, 53: names of templates and of list items are overwritten."""
    layer = nest().Instantiate()
    variables = layer.init(KEY, jnp.ones(3))
    assert sorted(variables["params"]) == sorted(CHILDREN)
    np.testing.assert_array_equal(layer.apply(variables, jnp.ones(3)), np.full(3, 64.0))


def test_children_that_never_run_have_no_variables():
    """Behaviour 53."""
    variables = nest(run_all=False).Instantiate().init(KEY, jnp.ones(3))
    assert list(variables["params"]) == ["made"]


MESH = {"ici_mesh_shape": [1, 2], "dcn_mesh_shape": [1, 1], "mesh_axis_names": ["data", "mdl"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", jnp.bfloat16),
        ("fprop_dtype", jnp.bfloat16),
        ("skip_lp_regularization", True),
        ("params_init", WeightInit.Gaussian(0.3)),
        ("contiguous_submeshes", True),
        *MESH.items(),
    ],
)
def test_inherited_by_every_child(field, value):
    """Behaviours 50, 54."""
    fields = MESH | {field: value} if field in MESH else {field: value}
    found = configs(nest(**fields))
    assert set(found) == {"", *CHILDREN}
    for config in found.values():
        got = getattr(config, field)
        assert (list(got) if field in MESH else got) == value


def test_what_children_keep():
    """Behaviours 51, 52."""
    parent = nest(
        dtype=jnp.bfloat16, params_init=WeightInit.Gaussian(), skip_lp_regularization=True
    )
    parent.made_tpl.set(dtype=jnp.float32, params_init=WeightInit.Xavier(1.0))
    parent.held.set(skip_lp_regularization=False, params_init=base_layer.default_param_init())
    parent.weight_split_dims_mapping.wt = ["data"]
    found = configs(parent)
    assert found["made"].dtype == jnp.bfloat16, "float32 counts as unset"
    assert found["made"].params_init == WeightInit.Xavier(1.0)
    assert found["held"].skip_lp_regularization is False
    assert found["held"].params_init == WeightInit.Gaussian()
    assert found["held"].weight_split_dims_mapping.wt is None


def test_direct_construction_agrees_with_configs():
    """A layer built in place follows its owner's dtype in computation too."""
    owner = Nest(dtype=jnp.bfloat16, held=Scale(), name="nest")
    layer = owner.clone()
    assert layer.fprop_dtype == jnp.bfloat16
    variables = layer.init(KEY, jnp.ones(3, jnp.bfloat16))
    assert variables["params"]["held"]["s"].dtype == jnp.bfloat16
    assert layer.apply(variables, jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


def test_fprop_dtype_defaults_to_dtype():
    """Behaviour 42."""
    assert Scale.config(dtype=jnp.bfloat16).Instantiate().fprop_dtype == jnp.bfloat16
    assert Scale.config(fprop_dtype=jnp.bfloat16).Instantiate().dtype == jnp.float32


def test_template_is_left_alone_unless_asked():
    """Behaviour 49."""
    template = Scale.config(name="mine")

    class Owner(BaseLayer):
        skip: bool = False

        def setup(self) -> None:
            self.create_child("child", template, skip_clone=self.skip)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.child(x)

    Owner(dtype=jnp.bfloat16).init(KEY, jnp.ones(3))
    assert template == Scale.config(name="mine")
    Owner(dtype=jnp.bfloat16, skip=True).init(KEY, jnp.ones(3))
    assert template.dtype == jnp.bfloat16 and template.name == "child"


class Wrong(BaseLayer):
    """Makes one child the wrong way."""

    kind: str = ""
    tpl_as_any: BaseLayer = instance_field(Scale)

    def setup(self) -> None:
        match self.kind:
            case "field":
                self.create_child("kind", Scale.config())
            case "twice":
                self.create_child("child", Scale.config())
                self.create_child("child", Scale.config())
            case "layer":
                self.create_child("child", self.tpl_as_any)
            case "number":
                self.create_child("child", 3)
            case "sequence":
                self.create_children("child", 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("field", AttributeError, "Wrong 'net': child 'kind' has the name of a field of Wrong"),
        ("twice", ValueError, "Wrong 'net' has a child 'child' already"),
        ("layer", ValueError, r"Wrong 'net': child 'child' is made from a Scale.*annotate"),
        ("number", ValueError, "Wrong 'net': child 'child' is made from a int"),
        ("sequence", ValueError, "Wrong 'net': children 'child' are made from a int"),
    ],
)
def test_wrong_children(kind, error, message):
    """Behaviours 25, 47, 48."""
    with pytest.raises(error, match=message):
        Wrong.config(name="net", kind=kind).Instantiate().init(KEY, jnp.ones(3))


def test_child_outside_init_and_apply():
    with pytest.raises(AttributeError, match=r"Nest 'nest' has no attribute 'made' outside.*apply"):
        nest().Instantiate()(jnp.ones(3))
    assert not hasattr(Scale(), "nothing")


def test_misspelt_child():
    class Misspells(Nest):
        def __call__(self, x: jax.Array) -> jax.Array:
            return self.mede(x)

    with pytest.raises(AttributeError, match=r"'net' has no attribute 'mede'.*mean 'made'.*row_0"):
        Misspells.config(name="net").Instantiate().init(KEY, jnp.ones(3))


@pytest.mark.parametrize("argument", [Scale.config(), "foo", None])
def test_dtype_that_is_none_points_to_instantiate(argument):
    """Behaviour 40."""
    with pytest.raises(TypeError, match=r"(?s)Scale: dtype is .*config.Instantiate\(\)"):
        Scale(argument)


def test_nested_hparams_class_is_refused():
    """Behaviour 40."""
    with pytest.raises(ValueError, match="Old has a nested class HParams"):

        class Old(BaseLayer):
            class HParams:
                pass


def test_nested_sharding_class():
    """Behaviour 41: it becomes the template of its field, for subclasses too."""

    class Two(BaseLayer):
        class WeightSharding(BaseLayer.WeightSharding):
            second: base_layer.SplitDimsMapping = None

    class Three(Two):
        pass

    config = Three.config()
    config.weight_split_dims_mapping.second = ["data"]
    assert config.Instantiate().weight_split_dims_mapping.second == ["data"]
    with pytest.raises(AttributeError, match="thrid"):
        config.weight_split_dims_mapping.thrid = ["data"]
    with pytest.raises(ValueError, match=r"Bad.WeightSharding must derive from BaseLayer"):

        class Bad(BaseLayer):
            class WeightSharding:  # pyright: ignore[reportIncompatibleVariableOverride]
                pass


def test_hparams_build_the_same_layer():
    """Behaviour 43."""
    layer = nest(dtype=jnp.bfloat16).Instantiate()
    hparams = copy.deepcopy(layer.hparams)
    assert hparams.fprop_dtype == jnp.bfloat16 and hparams.name == "nest"
    again = hparams.Instantiate()
    assert again.hparams == layer.hparams


def test_layer_made_by_a_flax_module():
    """Behaviour 44."""

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            named = Scale.config(name="x").Instantiate()
            return named(Scale.config().Instantiate()(x))

    assert sorted(Plain().init(KEY, jnp.ones(3))["params"]) == ["Scale_0", "x"]


def test_shard_count():
    """Behaviour 45."""
    mesh = {"ici_mesh_shape": [2, 3], "mesh_axis_names": ["data", "mdl"]}
    layer = Scale.config(**mesh, dcn_mesh_shape=[5, 1]).Instantiate()
    counts = map(layer.get_shard_count_on_dim, (None, "data", ("data", "mdl")))
    assert list(counts) == [1, 10, 30]
    with pytest.raises(ValueError, match=r"no axis 'model', it has \['data', 'mdl'\]"):
        layer.get_shard_count_on_dim("model")


class Shares(BaseLayer):
    """Two children with one id."""

    other: float = 2.0

    def setup(self) -> None:
        self.create_child("a", Scale.config(shared_weight_layer_id="one"))
        self.create_child("b", Scale.config(shared_weight_layer_id="one", start=self.other))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.a(x) + self.b(x)


def test_shared_layer_has_one_set_of_variables_under_the_root():
    """Behaviours 91, 92: also without a JaxContext."""
    layer = Shares.config(name="net").Instantiate()
    variables = layer.init(KEY, jnp.ones(3))
    assert list(variables["params"]) == ["one"]
    np.testing.assert_array_equal(layer.apply(variables, jnp.ones(3)), np.full(3, 4.0))


def test_shared_layers_must_be_alike():
    """Behaviour 92."""
    with pytest.raises(ValueError, match=r"shared_weight_layer_id = 'one'.*start \(2.0, 3.0\)"):
        Shares.config(name="net", other=3.0).Instantiate().init(KEY, jnp.ones(3))


def test_compatible_hparams_ignores_the_name():
    """Behaviour 99."""
    assert base_layer.compatible_hparams(Scale.config(name="a"), Scale.config(name="b"))
    assert not base_layer.compatible_hparams(Scale.config(), Scale.config(start=1.0))
    assert {"start", "dtype", "name", "parent"} <= set(
        base_layer.get_template_fields(Scale.config())
    )
    with pytest.raises(TypeError, match="Expected a config, got int"):
        base_layer.get_template_fields(3)


def test_serving_trees():
    """Behaviour 95."""
    layer = nest().Instantiate()
    variables = layer.init(KEY, jnp.ones(3))
    weights, _ = layer.apply(variables, method=layer.quantize_weight, mutable=[])
    jax.tree.map(np.testing.assert_array_equal, weights, variables)
    specs, _ = layer.apply(variables, method=layer.quantized_partition_specs, mutable=[])
    assert sorted(specs["params"]) == sorted(CHILDREN)


def test_fields_that_hold_layers():
    holds = base_layer.is_sublayer_template_or_instance
    layer, config = Scale(), Scale.config()
    assert all(map(holds, [layer, config, [layer, None], {"a": config}, (config,)]))
    assert not any(map(holds, [None, 3, [], [None], {}, {1: layer}, pax_fiddle.Config(nest)]))


class Refuses(BaseLayer):
    """Raises an error that names the layer."""

    def __call__(self, x: jax.Array) -> jax.Array:
        raise ValueError(self.path_text)


class Holder(BaseLayer):
    """Calls its child as it is, or in a copy that Flax makes for a transformation."""

    child_tpl: LayerTpl = template_field(Refuses)
    transform: bool = False

    def setup(self) -> None:
        self.create_child("child", self.child_tpl)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.transform:
            return nn.remat(lambda child, x: child(x))(self.child, x)
        return self.child(x)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_errors_inside_a_transformation_name_the_whole_path(outer, inner):
    middle = pax_fiddle.Config(Holder, transform=inner)
    config = pax_fiddle.Config(Holder, name="lm", child_tpl=middle, transform=outer)
    with pytest.raises(ValueError, match=r"^Refuses 'lm/child/child'"):
        pax_fiddle.build(config).init(KEY, jnp.ones([2]))
    with pytest.raises(ValueError, match=r"^Refuses 'other/child/child'"):
        pax_fiddle.build(config).clone(name="other").init(KEY, jnp.ones([2]))

"""init by other methods, and what abstract init tells (core behaviours 76 to 84)."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from praxis import base_layer, pax_fiddle
from praxis.base_layer import BaseLayer, WeightHParams, WeightInit, instance_field, template_field
from praxis.core import boxed
from praxis.layers import flax_adapter, repeats

KEY = jax.random.PRNGKey(0)
X = jnp.ones([2, 3])
LayerTpl = pax_fiddle.Config[BaseLayer]


class Matrix(BaseLayer):
    """Multiplies by a matrix with fan axes and a sharding."""

    def setup(self) -> None:
        hparams = WeightHParams(
            [3, 3], tensor_split_dims_mapping=["data", None], fan_in_axes=[0], fan_out_axes=[-1]
        )
        self.create_variable("w", hparams)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.theta.w


class Parts(BaseLayer):
    """Children of which each method uses another."""

    first_tpl: LayerTpl = template_field(Matrix)
    second: BaseLayer = instance_field(Matrix)
    many_tpls: list[LayerTpl] = instance_field(list)
    scale: float = 1.0

    def setup(self) -> None:
        first = self.first_tpl.clone().set(skip_lp_regularization=True)
        self.create_child("first", first)
        self.create_children("many", self.many_tpls)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.only_second(self.only_first(x))

    def only_first(self, x: jax.Array) -> jax.Array:
        return self.first(x) * self.scale

    def only_second(self, x: jax.Array) -> jax.Array:
        return self.second(x)


def build(cls, **fields: Any) -> Any:
    return pax_fiddle.build(pax_fiddle.Config(cls, name="net", **fields))


@pytest.mark.parametrize("method", ["only_second", Parts.only_second, "bound"])
def test_only_the_method_that_runs_decides_which_children_exist(method):
    """Behaviour 78."""
    layer = build(Parts)
    method = layer.only_second if method == "bound" else method
    assert list(layer.init(KEY, X, method=method)["params"]) == ["second"]
    assert list(layer.abstract_init_with_metadata(X, method=method)["params"]) == ["second"]


def test_metadata_is_complete():
    """Behaviour 79: shape, dtype, init, collections and sharding of each variable."""
    layer = build(Parts, dtype=jnp.bfloat16, params_init=WeightInit.Gaussian(0.1))
    meta = layer.abstract_init_with_metadata(X)["params"]["first"]["w"]
    assert meta == WeightHParams(
        [3, 3],
        WeightInit.Gaussian(0.1),
        jnp.bfloat16,
        collections=[base_layer.WeightHParamsCollection.SKIP_LP_REGULARIZATION],
        tensor_split_dims_mapping=["data", None],
        fan_in_axes=[0],
        fan_out_axes=[-1],
    )


def test_inputs_of_abstract_init():
    """Behaviour 79: float32 follows the type of computation, integers and flags stay."""
    seen = []

    class Looks(BaseLayer):
        def __call__(self, x, ids, *, flag):
            seen.extend([x.dtype, ids.dtype, flag, self.do_eval])

    layer = build(Looks, fprop_dtype=jnp.bfloat16)
    layer.abstract_init_with_metadata(X, jnp.zeros([2], jnp.int32), flag=True, do_eval=True)
    assert seen == [jnp.bfloat16, jnp.int32, True, True]
    assert not base_layer.JaxContext.has_context()


def test_stacks_are_in_the_metadata():
    """Behaviour 80: stacks stand in front, outermost first, and move fan axes."""
    inner = pax_fiddle.Config(repeats.Repeat, sub_tpl=pax_fiddle.Config(Matrix), x_times=2)
    inner.weight_split_dims_mapping.sub = ["mdl"]
    layer = build(repeats.Repeat, sub_tpl=inner, x_times=5)
    meta = layer.abstract_init_with_metadata(X)["params"]["sub"]["sub"]["w"]
    assert (list(meta.repeat_prefix), list(meta.shape)) == ([5, 2], [3, 3])
    assert list(meta.full_shape) == [5, 2, 3, 3]
    assert list(meta.full_split_dims_mapping) == [-1, "mdl", "data", None]
    assert (list(meta.fan_in_axes), list(meta.fan_out_axes)) == ([2], [-1])
    assert layer.init(KEY, X)["params"]["sub"]["sub"]["w"].shape == (5, 2, 3, 3)


def test_initial_values_of_a_stack_do_not_depend_on_its_size():
    """Behaviour 80: fans are those of one layer."""
    layer = build(repeats.Repeat, sub_tpl=pax_fiddle.Config(Matrix), x_times=50)
    weights = np.asarray(layer.init(KEY, X)["params"]["sub"]["w"])
    limit = np.sqrt(6 / (3 + 3))
    assert 0.9 * limit < np.abs(weights).max() <= limit * 1.00001


def test_box_in_a_box_is_refused():
    """Behaviour 81."""
    hparams = WeightHParams([2])
    with pytest.raises(ValueError, match=r"shape \[2\] is in a box already"):
        boxed.box(boxed.box(jnp.ones([2]), hparams), hparams)


def test_configs_of_the_layers_that_run():
    """Behaviour 83: sub-configs are None, children are nodes, edits made in setup show."""
    templates = [pax_fiddle.Config(Matrix), pax_fiddle.Config(Matrix)]
    layer = build(Parts, many_tpls=templates, dtype=jnp.bfloat16)
    tree = layer.abstract_init_with_mdl_config(X)
    own = tree["_hparams"]
    assert sorted(tree) == ["_hparams", "first", "second"], "many are never called"
    assert (own.first_tpl, own.second, list(own.many_tpls)) == (None, None, [None, None])
    assert (own.cls, own.name, own.scale) == (Parts, "net", 1.0)
    first, second = tree["first"]["_hparams"], tree["second"]["_hparams"]
    assert (first.skip_lp_regularization, second.skip_lp_regularization) == (True, None)
    assert (first.name, first.dtype, second.fprop_dtype) == ("first", jnp.bfloat16, jnp.bfloat16)


def test_configs_inside_a_loop_appear_once():
    """Behaviour 83."""
    layer = build(repeats.Repeat, sub_tpl=pax_fiddle.Config(Matrix), x_times=3)
    tree = layer.abstract_init_with_mdl_config(X)
    assert tree["sub"]["_hparams"].cls is Matrix and tree["_hparams"].sub_tpl is None


def test_variables_of_flax_inside_a_loop_are_stacked():
    """Batch statistics of a Flax module get the leading axis, and each layer updates its own."""
    adapter = pax_fiddle.Config(
        flax_adapter.FlaxModuleAdapter,
        module_factory_method=lambda: nn.BatchNorm(use_running_average=False, momentum=0.5),
    )
    layer = build(repeats.Repeat, sub_tpl=adapter, x_times=3)
    x = jnp.asarray([[1.0, 5.0], [3.0, 5.0]])
    variables = layer.init(KEY, x)
    statistics = variables["batch_stats"]["sub"]["cld"]
    np.testing.assert_array_equal(statistics["mean"], np.zeros([3, 2]))
    _, updated = layer.apply(variables, x, mutable=["batch_stats"])
    means = updated["batch_stats"]["sub"]["cld"]["mean"]
    np.testing.assert_allclose(means, [[1.0, 2.5], [0.0, 0.0], [0.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("sizes", list(itertools.product([1, 2], repeat=2)))
def test_apply_runs_with_what_init_made(sizes):
    """Behaviour 76."""
    layer = build(Parts)
    x = jnp.ones([*sizes, 3])
    assert layer.apply(layer.init(KEY, x), x).shape == x.shape

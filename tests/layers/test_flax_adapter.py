"""Flax modules as layers: behaviours 75 and 96 of the core."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning

from praxis import base_layer, pax_fiddle
from praxis.layers import flax_adapter

KEY = jax.random.PRNGKey(3)
X = jnp.float32(np.random.default_rng(0).standard_normal([2, 3]))
MESH = {"ici_mesh_shape": [1, 1], "mesh_axis_names": ["data", "mdl"]}
RULES = (("embed", None), ("mlp", "mdl"))


class Inner(nn.Module):
    """One dense layer in a compact method, named by Flax."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(x)


class Outer(nn.Module):
    """Holds the module under the name that the adapter gives it."""

    @nn.compact
    def __call__(self, x):
        return Inner(name="cld")(x)


def adapter(factory, cls=flax_adapter.FlaxModuleAdapter, **fields):
    config = pax_fiddle.Config(cls, name="layer", module_factory_method=factory, **fields)
    return pax_fiddle.build(config)


def test_first_weights_are_those_of_plain_flax():
    """Behaviour 75."""
    ours = adapter(Inner).init(KEY, X)["params"]
    plain = Outer().init(KEY, X)["params"]
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
    y = adapter(Inner).apply({"params": ours}, X)
    np.testing.assert_array_equal(y, Outer().apply({"params": plain}, X))


def test_batch_statistics_are_not_trainable_and_averaged():
    """Behaviour 96."""
    layer = adapter(functools.partial(nn.BatchNorm, use_running_average=False))
    variables = layer.init(KEY, X)
    np.testing.assert_array_equal(variables["batch_stats"]["cld"]["mean"], np.zeros(3))
    _, updated = layer.apply(variables, X, mutable=["batch_stats"])
    np.testing.assert_allclose(
        updated["batch_stats"]["cld"]["mean"], 0.01 * np.mean(X, 0), rtol=2e-5, atol=2e-5
    )
    meta = layer.abstract_init_with_metadata(X)
    assert list(meta["batch_stats"]["cld"]["mean"].collections) == [
        base_layer.WeightHParamsCollection.NON_TRAINABLE,
        base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC,
    ]
    assert list(meta["params"]["cld"]["scale"].collections) == []


class AxesCollection(nn.Module):
    """Names its axes in a `params_axes` collection."""

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.ones_init()
        w = partitioning.param_with_axes("w", init, (3, 5), axes=("embed", "mlp"))
        return x @ w


class AxesBox(nn.Module):
    """Names its axes in a box of Flax."""

    @nn.compact
    def __call__(self, x):
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("embed", "mlp"))
        return x @ self.param("w", init, (3, 5))


class Twice(flax_adapter.FlaxModuleAdapter):
    """Calls its module twice, so that the second call of init finds the variables."""

    def __call__(self, x):
        return super().__call__(x) - super().__call__(2 * x)


@pytest.mark.parametrize("module", [AxesCollection, AxesBox])
@pytest.mark.parametrize("cls", [flax_adapter.FlaxModuleAdapter, Twice])
def test_logical_axes_become_the_sharding(module, cls):
    """Behaviour 96, with one call and with two."""
    layer = adapter(module, cls, logical_axes_rules=RULES, **MESH)
    meta = layer.abstract_init_with_metadata(X)
    assert set(meta) == {"params"}
    assert list(meta["params"]["cld"]["w"].tensor_split_dims_mapping) == [None, "mdl"]
    y = layer.apply({"params": layer.init(KEY, X)["params"]}, X)
    expected = np.asarray(X, np.float64) @ np.ones([3, 5]) * (-1 if cls is Twice else 1)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_rules_without_a_mesh_are_refused():
    with pytest.raises(ValueError, match="'layer': logical_axes_rules is set but there is no mesh"):
        adapter(Inner, logical_axes_rules=RULES).init(KEY, X)


class EncoderDecoder(nn.Module):
    """Three methods that share one dense layer."""

    def setup(self):
        self.dense = nn.Dense(3, use_bias=False)

    def encode(self, x):
        return self.dense(x)

    def decode(self, encoded, x):
        return self.dense(encoded + x)

    def compute_logits(self, x):
        return self.dense(x) * 2

    def __call__(self, x):
        return self.compute_logits(self.decode(self.encode(x), x))


def test_methods_are_forwarded():
    layer = adapter(EncoderDecoder, flax_adapter.EncoderDecoderFlaxModuleAdaptor)
    variables = layer.init(KEY, X)
    w = np.asarray(variables["params"]["cld"]["dense"]["kernel"], np.float64)
    x = np.asarray(X, np.float64)

    def run(*args, method):
        return layer.apply(variables, *args, method=method)

    cases = [
        (run(X, method="encode"), x @ w),
        (run(X, X, method="decode"), 2 * x @ w),
        (run(X, method="compute_logits"), 2 * x @ w),
        (run("encode", X, method="call_method"), x @ w),
    ]
    for actual, expected in cases:
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def test_an_unknown_method_is_named():
    layer = adapter(Inner)
    with pytest.raises(ValueError, match="'layer': the wrapped Inner has no method 'encode'"):
        layer.init(KEY, "encode", X, method="call_method")


def test_dropout_draws_from_its_own_stream():
    """Behaviour 96."""
    layer = adapter(functools.partial(nn.Dropout, 0.5, deterministic=False))
    y = layer.apply({}, jnp.ones([64]), rngs={"dropout": KEY})
    assert set(np.unique(y)) == {0.0, 2.0}
    with pytest.raises(Exception, match='needs PRNG for "dropout"'):
        layer.apply({}, jnp.ones([64]), rngs={"random": KEY})


@pytest.mark.parametrize("module", [Inner(), pax_fiddle.Config(Inner)])
def test_the_direct_adapter_takes_a_module_or_a_config(module):
    layer = pax_fiddle.build(pax_fiddle.Config(flax_adapter.DirectFlaxModuleAdapter, cld=module))
    variables = layer.init(KEY, X)
    plain = Outer().init(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], plain["params"])
    np.testing.assert_array_equal(layer.apply(variables, X), Outer().apply(plain, X))
    meta = layer.abstract_init_with_metadata(X)["params"]["cld"]["Dense_0"]["kernel"]
    assert list(meta.shape) == [3, 5]


def test_missing_modules_are_named_by_field():
    """Behaviour 96."""
    with pytest.raises(
        ValueError, match="FlaxModuleAdapter 'layer': module_factory_method is None"
    ):
        adapter(None).init(KEY, X)
    direct = pax_fiddle.Config(flax_adapter.DirectFlaxModuleAdapter, name="layer")
    with pytest.raises(TypeError, match="DirectFlaxModuleAdapter 'layer': cld is a NoneType"):
        pax_fiddle.build(direct).init(KEY, X)


def test_the_base_asks_for_the_module():
    layer = pax_fiddle.build(pax_fiddle.Config(flax_adapter.FlaxModuleAdapterBase, name="layer"))
    with pytest.raises(NotImplementedError, match="'layer' does not define _build_wrapped_module"):
        layer.init(KEY, X)

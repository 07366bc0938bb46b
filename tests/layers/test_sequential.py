"""Layers called one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle, py_utils
from praxis.layers import linears
from praxis.layers.sequential import Sequential


def build(*layers):
    return pax_fiddle.build(pax_fiddle.Config(Sequential, name="chain", layers=list(layers)))


def test_chains_layers_and_functions():
    layer = build(
        pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=5),
        jnp.tanh,
        pax_fiddle.Config(linears.Bias, dims=5, bias_init=2.0),
    )
    x = np.random.default_rng(0).standard_normal([2, 3])
    variables = layer.init(jax.random.PRNGKey(0), jnp.float32(x))
    w = np.asarray(variables["params"]["layers_0"]["w"], np.float64)
    assert set(variables["params"]) == {"layers_0", "layers_2"}
    y = layer.apply(variables, jnp.float32(x))
    np.testing.assert_allclose(y, np.tanh(x @ w) + 2, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", [dict, py_utils.NestedMap])
def test_tuples_are_positional_and_mappings_keywords(kind):
    layer = build(
        lambda x: (x, 2 * x),
        lambda a, b: kind(low=a, high=b),
        lambda *, high, low: high - low / 4,
    )
    np.testing.assert_allclose(layer.apply({}, jnp.float32(4)), 7)


@pytest.mark.parametrize("layers", [[], None])
def test_without_layers_there_is_an_error(layers):
    layer = pax_fiddle.build(pax_fiddle.Config(Sequential, name="chain", layers=layers))
    with pytest.raises(ValueError, match=r"Sequential 'chain': layers is .*at least one layer"):
        layer.apply({}, jnp.ones([2]))

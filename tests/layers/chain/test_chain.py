"""Chains: what goes from layer to layer, names of variables, the small layers."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import activations, chain, linears
from praxis.layers.chain.chain import call_chained_layer, ensure_tuple

KEY = jax.random.PRNGKey(0)
D, F = 3, 5
X = jnp.float32(np.random.default_rng(0).standard_normal((2, D)))


def linear(input_dims=D, output_dims=D, **fields):
    return pax_fiddle.Config(
        linears.Linear, input_dims=input_dims, output_dims=output_dims, **fields
    )


def run(config, *args, **kwargs):
    layer = pax_fiddle.build(config)
    variables = layer.init(KEY, *args, **kwargs)
    return layer.apply(variables, *args, **kwargs), variables.get("params", {})


def test_names_are_kept_or_come_from_the_place():
    config = chain.chain(linear(), linear(name="mine"), linear(), linear(name="mine"), name="net")
    _, params = run(config, X)
    assert set(params) == {"layers0", "mine", "layers2", "mine3"}
    assert config.name == "net"
    assert chain.chain(linear()).name == "chain"


def test_templates_stay_as_they_are():
    template = linear()
    chain.chain(template)
    assert template.name is None


def test_layers_follow_one_another():
    config = chain.chain(
        chain.feed_forward(D, F), linear(F, D), pax_fiddle.Config(activations.Tanh), name="net"
    )
    y, params = run(config, X)
    first = params["feed_forward"]
    hidden = jnp.maximum(X @ first["linear"]["w"] + first["bias"]["b"][np.newaxis], 0.0)
    np.testing.assert_allclose(y, jnp.tanh(hidden @ params["layers1"]["w"]), rtol=2e-5, atol=2e-5)


def test_feed_forward_takes_another_nonlinearity():
    config = chain.feed_forward(D, F, pax_fiddle.Config(activations.Identity), has_bias=False)
    y, params = run(config, X)
    np.testing.assert_allclose(y, X @ params["linear"]["w"], rtol=2e-5, atol=2e-5)


def test_residual_is_added_to_the_first_output():
    y, params = run(chain.add_residual(linear(), name="net"), X)
    np.testing.assert_allclose(y, X + X @ params["layers0"]["w"], rtol=2e-5, atol=2e-5)
    (y, other), _ = run(chain.add_residual(chain.log_args("pair"), name="net"), X, 2 * X)
    np.testing.assert_array_equal(y, 2 * X)
    np.testing.assert_array_equal(other, 2 * X)


@pytest.mark.parametrize("looped", [False, True])
def test_copies_have_their_own_variables(looped):
    make = chain.repeat if looped else chain.copy_n_times
    y, params = run(make(3, linear(), name="net"), X)
    weights = (
        params["sub"]["layers0"]["w"] if looped else [params[f"layers{i}"]["w"] for i in range(3)]
    )
    expected = X
    for w in weights:
        expected = expected @ w
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    assert not np.array_equal(weights[0], weights[1])


def test_tuples_and_dicts_between_layers():
    batch = {"x": X, "paddings": jnp.float32([0.0, 1.0]), "y": X}
    config = chain.chain(chain.dict_to_args("x", "paddings"), chain.apply_padding(), name="net")
    y, _ = run(config, batch)
    np.testing.assert_array_equal(y, X.at[1].set(0.0))
    y, _ = run(chain.chain(chain.dict_to_args("y"), chain.full_like(7.0), name="net"), batch)
    np.testing.assert_array_equal(y, np.full([2, D], 7.0))


def test_missing_entries_are_named():
    config = chain.chain(chain.dict_to_args("x", "z"), name="net")
    with pytest.raises(
        ValueError, match=r"DictToArgs 'net/dict_to_args'.*lacks \['z'\]\. It has \['x'\]"
    ):
        run(config, {"x": X})


def test_keyword_arguments_go_to_the_layers_that_take_them():
    layers = [lambda x, scale: x * scale, lambda x: x + 1, lambda x, *, scale: x * scale]
    assert chain.call_chain(layers, 2, scale=10) == 210
    with pytest.raises(TypeError, match="got 'offset', but no layer takes an argument"):
        chain.call_chain(layers, 2, offset=1)
    assert call_chained_layer(layers[1], 2, scale=3) == 3


def test_no_layers_hand_the_arguments_back():
    assert chain.call_chain([], 1) == 1
    assert chain.call_chain([], 1, 2) == (1, 2)
    assert ensure_tuple(1) == (1,)
    assert ensure_tuple((1, 2)) == (1, 2)
    y, _ = run(chain.chain(name="net"), X)
    np.testing.assert_array_equal(y, X)


def test_functions_are_layers_too():
    y, _ = run(pax_fiddle.Config(chain.Chain, layers=[jnp.tanh, linear()], name="net"), X)
    assert y.shape == X.shape


@pytest.mark.parametrize("log_values", [False, True])
def test_arguments_are_logged(log_values, caplog):
    config = chain.chain(chain.log_args("here", log_values=log_values), linear(), name="net")
    with caplog.at_level(logging.INFO, logger="absl"):
        run(config, X)
        jax.effects_barrier()
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("here: (('float32[2, 3]',)") for line in lines)
    assert any(str(float(X[0, 0]))[:5] in line for line in lines) == log_values

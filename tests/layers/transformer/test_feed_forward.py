"""The feed-forward layer against NumPy, for each norm policy and gating."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, transformers

B, T, D, F = 2, 3, 5, 7
KEY = jax.random.PRNGKey(0)


def build(**fields):
    fields = {"input_dims": D, "hidden_dims": F, **fields}
    return pax_fiddle.build(
        pax_fiddle.Config(transformers.TransformerFeedForward, name="ffn", **fields)
    )


def random_params(layer, *args):
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: layer.init(KEY, *args)))
    keys = jax.random.split(jax.random.PRNGKey(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(
        tree, [0.5 * jax.random.normal(k, x.shape, x.dtype) for k, x in pairs]
    )


def norm(params, x):
    """Layer norm with the stored scale around 1."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-6) * (1 + params["scale"]) + params["bias"]


def reference(params, x, paddings, *, policy, gated, weight):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    linear = lambda name, v: v @ p[name]["linear"]["w"] + p[name]["bias"]["b"]  # noqa: E731
    relu = lambda v: np.maximum(v, 0)  # noqa: E731
    keep = 1 - np.asarray(paddings, np.float64)[..., None]
    first, last = (
        ("pre_layer_norm", "post_layer_norm")
        if policy == "primer_hybrid"
        else (
            "layer_norm",
            "layer_norm",
        )
    )
    h = norm(p[first], x) if policy in ("pre", "primer_hybrid") else x
    if gated:
        hidden = relu(linear("ffn_layer1_gate", h)) * linear("ffn_layer1", h)
    else:
        hidden = relu(linear("ffn_layer1", h))
    y = linear("ffn_layer2", hidden * keep) * keep
    y = norm(p[last], y) if policy in ("post", "primer_hybrid") else y
    y = x + weight * y
    return norm(p[last], y) if policy == "post_skip" else y


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("policy", ["pre", "post", "primer_hybrid", "post_skip"])
def test_matches_numpy(policy, gated):
    """28, transformers: FFN gated or not, all norm policies."""
    layer = build(norm_policy=policy, use_gated_activation=gated, residual_weight=0.5)
    x = np.random.default_rng(0).standard_normal((B, T, D))
    paddings = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    variables = random_params(layer, jnp.float32(x), paddings)
    y = jax.jit(layer.apply)(variables, jnp.float32(x), paddings)
    expected = reference(variables["params"], x, paddings, policy=policy, gated=gated, weight=0.5)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("activation", [activations.GELU, activations.SquaredReLU])
def test_activation_of_the_hidden_layer(activation):
    layer = build(activation_tpl=pax_fiddle.Config(activation), norm_policy="post_skip")
    assert layer.hparams.activation_tpl.cls is activation
    x = jnp.ones([B, D])
    variables = random_params(layer, x)
    _, found = layer.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    hidden = found["intermediates"]["ffn_layer1"]
    before = hidden["bias"]["__call__"][0]
    expected = pax_fiddle.build(pax_fiddle.Config(activation)).apply({}, before)
    np.testing.assert_allclose(hidden["__call__"][0], expected, rtol=2e-5)


def test_padding_has_no_effect_even_when_it_is_nan():
    layer = build(apply_padding_first=True)
    x = jnp.float32(np.random.default_rng(0).standard_normal((B, T, D)))
    paddings = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    variables = random_params(layer, x, paddings)
    y = layer.apply(variables, x.at[0, 2].set(jnp.nan), paddings)
    np.testing.assert_array_equal(y[0, 2], 0.0)
    np.testing.assert_allclose(y[:, :2], layer.apply(variables, x)[:, :2], rtol=2e-5)


def test_bfloat16_stays_with_float32_paddings():
    layer = build(fprop_dtype=jnp.bfloat16)
    x = jnp.ones([B, T, D], jnp.bfloat16)
    variables = layer.init(KEY, x, jnp.zeros([B, T]))
    assert layer.apply(variables, x, jnp.zeros([B, T])).dtype == jnp.bfloat16


def test_first_weights_of_the_fan_in_option():
    layer = build(input_dims=64, hidden_dims=128, internal_gshard_variance_scaling_fan_in_init=True)
    params = layer.init(KEY, jnp.ones([B, 64]))["params"]
    for name, fan in (("ffn_layer1", 64), ("ffn_layer2", 128)):
        weight = np.asarray(params[name]["linear"]["w"])
        assert np.abs(weight).max() <= np.sqrt(3 / fan)
        assert weight.var() == pytest.approx(1 / fan, rel=0.1)


def test_summaries_wait_for_their_verbosity():
    layer = build(norm_policy="primer_hybrid")
    x = jnp.ones([B, T, D])
    variables = layer.init(KEY, x)
    hparams = base_layer.JaxContext.HParams(summary_verbosity=4)
    with base_layer.JaxContext.new_context(hparams=hparams):
        _, updated = layer.apply(variables, x, mutable=["summaries"])
    assert set(updated["summaries"]) == {
        "input_rms_scalar",
        "input_norm_rms_scalar",
        "activation_rms_scalar",
        "output_rms_scalar",
        "output_norm_rms_scalar",
        "output_rel_cos_scalar",
    }
    assert float(updated["summaries"]["input_rms_scalar"]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_dims": 0}, "TransformerFeedForward 'ffn': input_dims is 0"),
        ({"hidden_dims": 0}, "hidden_dims is 0"),
        ({"norm_policy": "before"}, "norm_policy is 'before', expected one of .*'pre', 'post'"),
        ({"output_dims": 4}, "add_skip_connection = True.*input_dims = 5 and output_dims = 4"),
    ],
)
def test_fields_that_cannot_work_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields).init(KEY, jnp.ones([B, T, D]))

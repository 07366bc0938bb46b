"""LayerNorm and RmsNorm against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import normalizations

RNG = np.random.default_rng(0)
X = RNG.standard_normal([2, 3, 5]) * 3 + 1
SCALE, BIAS = RNG.standard_normal([2, 5])
SKIP_LP = base_layer.WeightHParamsCollection.SKIP_LP_REGULARIZATION


def build(cls, **fields):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="norm", **fields))


def layer_norm(x, epsilon):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon)


def rms_norm(x, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("direct_scale", [False, True])
def test_layer_norm_matches_numpy(use_scale, use_bias, direct_scale):
    layer = build(
        normalizations.LayerNorm,
        dim=5,
        epsilon=0.01,
        use_scale=use_scale,
        use_bias=use_bias,
        direct_scale=direct_scale,
    )
    params = {"scale": jnp.float32(SCALE)} if use_scale else {}
    if use_bias:
        params["bias"] = jnp.float32(BIAS)
    expected = layer_norm(X, 0.01)
    if use_scale:
        expected = expected * (SCALE if direct_scale else 1 + SCALE)
    if use_bias:
        expected = expected + BIAS
    y = layer.apply({"params": params}, jnp.float32(X))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("direct_scale", [False, True])
def test_rms_norm_matches_numpy(direct_scale):
    layer = build(normalizations.RmsNorm, dim=5, epsilon=0.01, direct_scale=direct_scale)
    y = layer.apply({"params": {"scale": jnp.float32(SCALE)}}, jnp.float32(X))
    expected = rms_norm(X, 0.01) * (SCALE if direct_scale else 1 + SCALE)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_rms_norm_without_scale_matches_numpy():
    y = build(normalizations.RmsNormNoScale, epsilon=0.01).apply({}, jnp.float32(X))
    np.testing.assert_allclose(y, rms_norm(X, 0.01), rtol=2e-5, atol=2e-5)


def test_identity():
    x = jnp.float32(X)
    assert build(normalizations.IdentityNorm).apply({}, x) is x


@pytest.mark.parametrize(
    ("cls", "fields", "function"),
    [
        (normalizations.LayerNorm, {"reductions_in_fp32": False}, layer_norm),
        (normalizations.LayerNorm, {"reductions_in_fp32": True}, layer_norm),
        (normalizations.RmsNorm, {}, rms_norm),
        (normalizations.RmsNorm, {"intermediate_dtype": jnp.float32}, rms_norm),
    ],
)
def test_low_precision_is_off_by_one_rounding_only(cls, fields, function):
    """The statistics are float32: the error is that of rounding the exact result to bfloat16."""
    x = jnp.asarray(RNG.standard_normal([7, 512]) + 2, jnp.bfloat16)
    layer = build(cls, dim=512, fprop_dtype=jnp.bfloat16, **fields)
    scale = jnp.full([512], 0.0 if cls is normalizations.LayerNorm else 1.0)
    params = {"scale": scale}
    if cls is normalizations.LayerNorm:
        params["bias"] = jnp.zeros([512])
    y = layer.apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(y, np.float64),
        function(np.asarray(x, np.float64), 1e-6),
        rtol=2.0**-8,
        atol=2e-5,
    )


def test_rms_norm_returns_fprop_dtype_and_casts_to_the_intermediate_one():
    x = jnp.float32(X)
    layer = build(normalizations.RmsNorm, dim=5, intermediate_dtype=jnp.bfloat16)
    y = layer.apply({"params": {"scale": jnp.ones(5)}}, x)
    assert y.dtype == jnp.float32
    rounded = np.asarray(x.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(y, rms_norm(rounded, 1e-6), rtol=2e-5, atol=2e-5)


def test_scales_start_at_identity_and_only_layer_norm_skips_weight_decay():
    x = jnp.float32(X)
    for cls, fields, value, collections in [
        (normalizations.LayerNorm, {}, 0.0, [SKIP_LP]),
        (normalizations.LayerNorm, {"direct_scale": True}, 1.0, [SKIP_LP]),
        (normalizations.RmsNorm, {}, 1.0, []),
        (normalizations.RmsNorm, {"direct_scale": False}, 0.0, []),
    ]:
        meta = build(cls, dim=5, **fields).abstract_init_with_metadata(x)["params"]["scale"]
        assert (meta.init.method, meta.init.scale) == ("constant", value)
        assert list(meta.collections) == collections


@pytest.mark.parametrize("cls", [normalizations.LayerNorm, normalizations.RmsNorm])
@pytest.mark.parametrize(
    ("dim", "message"),
    [
        (0, "'norm': dim is 0, expected at least 1"),
        (7, r"'norm': inputs have shape \(2, 3, 5\), expected .* D = dim = 7"),
    ],
)
def test_errors_name_the_layer_and_the_field(cls, dim, message):
    layer = build(cls, dim=dim)
    with pytest.raises(ValueError, match=f"{cls.__name__} {message}"):
        layer.abstract_init_with_metadata(jnp.float32(X))

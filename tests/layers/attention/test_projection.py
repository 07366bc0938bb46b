"""Projections to and from heads against NumPy, their layouts, first weights and shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers.attention.projection import merge_split_dims
from praxis.layers.attentions import AttentionProjection, CombinedQKVProjectionLayer

D, N, H = 7, 3, 5


def build(cls: Any = AttentionProjection, **fields):
    fields = {"input_dim": D, "num_heads": N, "dim_per_head": H, **fields}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="proj", **fields))


@pytest.mark.parametrize("combine", [False, True])
@pytest.mark.parametrize("kind", ["in", "out", "out_nhd"])
def test_matches_numpy(kind, combine):
    """28, attentions: projections in, out and nhd, with and without merged heads."""
    rng = np.random.default_rng(0)
    out, nhd = kind != "in", kind == "out_nhd"
    layer = build(
        is_output_projection=out,
        use_nhd_shape=nhd,
        attention_combine_dims=combine,
        use_bias=not combine,
    )
    x = rng.standard_normal((2, 11, N, H) if out else (2, 11, D))
    weight = rng.standard_normal((N, H, D) if nhd else (D, N, H))
    bias = rng.standard_normal((D,) if out else (N, H))
    expected = np.einsum(
        {"in": "btd,dnh->btnh", "out": "btnh,dnh->btd", "out_nhd": "btnh,nhd->btd"}[kind], x, weight
    )
    params = {"w": weight, "b": bias}
    if combine:
        params = {"w": weight.reshape(N * H, D) if nhd else weight.reshape(D, N * H)}
    else:
        expected = expected + bias
    params = jax.tree.map(jnp.float32, params)
    y = layer.apply({"params": params}, jnp.float32(x))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    step = layer.apply({"params": params}, jnp.float32(x[:, 0]), time_step=0, method="extend_step")
    np.testing.assert_allclose(step, expected[:, 0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("combine", [False, True])
def test_combined_projection_matches_three(combine):
    """28, attentions: combined QKV with combined dims equals separate."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 11, D)), rng.standard_normal((3, D, N, H))
    bias = rng.standard_normal((3, N, H))
    layer = build(CombinedQKVProjectionLayer, attention_combine_dims=combine)
    params = {"w": weight, "b": bias}
    if combine:
        params = {"w": weight.reshape(3, D, N * H), "b": bias.reshape(3, N * H)}
    params = jax.tree.map(jnp.float32, params)
    outputs = layer.apply({"params": params}, jnp.float32(x))
    for y, w, b in zip(outputs, weight, bias, strict=True):
        expected = np.einsum("btd,dnh->btnh", x, w) + b
        np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "fans"),
    [
        ({}, (64 * 8, 64 * 4)),  # read as a convolution: a published wart
        ({"explicit_fan_in_fan_out_axes": True}, (64, 8 * 4)),
        (
            {
                "explicit_fan_in_fan_out_axes": True,
                "is_output_projection": True,
                "use_nhd_shape": True,
            },
            (64, 8 * 4),
        ),
    ],
)
def test_variance_of_first_weights_tells_the_fans(fields, fans):
    """28, attentions: fan statistics of the initial weights with explicit axes."""
    layer = build(input_dim=64, num_heads=8, dim_per_head=4, **fields)
    shape = (2, 8, 4) if fields.get("is_output_projection") else (2, 64)
    weight = layer.init(jax.random.PRNGKey(0), jnp.ones(shape))["params"]["w"]
    if not fields:
        fans = (64 * 8, 64 * 4)
    assert np.var(weight) == pytest.approx(2.0 / sum(fans), rel=0.1)


@pytest.mark.parametrize(
    ("split", "first", "merged"),
    [
        (None, 1, None),
        (["data", "mdl", None], 1, ["data", ("mdl",)]),
        (["data", None, -1], 1, ["data", None]),
        ([("a", "b"), "mdl", "data"], 0, [("a", "b", "mdl"), "data"]),
        (["data", "mdl"], 1, ["data", "mdl"]),
    ],
)
def test_merged_axes_take_the_sharding_of_both(split, first, merged):
    assert merge_split_dims(split, first) == merged


def test_merged_heads_refuse_a_bias_and_name_both_fields():
    layer = build(attention_combine_dims=True)
    with pytest.raises(ValueError, match=r"attention_combine_dims = True and use_bias = True"):
        layer.init(jax.random.PRNGKey(0), jnp.ones([2, D]))


@pytest.mark.parametrize("field", ["input_dim", "num_heads", "dim_per_head"])
@pytest.mark.parametrize("cls", [AttentionProjection, CombinedQKVProjectionLayer])
def test_a_missing_size_is_named(cls, field):
    with pytest.raises(ValueError, match=rf"{cls.__name__} 'proj': {field} is 0"):
        build(cls, **{field: 0}).init(jax.random.PRNGKey(0), jnp.ones([2, D]))


def test_wrong_widths_name_the_shape_and_the_fields():
    with pytest.raises(ValueError, match=r"AttentionProjection 'proj'.*\(2, 4\).*input_dim = 7"):
        build().init(jax.random.PRNGKey(0), jnp.ones([2, 4]))
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*num_heads = 3 and H = dim_per_head = 5"):
        layer = build(is_output_projection=True)
        layer.init(jax.random.PRNGKey(0), jnp.ones([2, N, 4]))

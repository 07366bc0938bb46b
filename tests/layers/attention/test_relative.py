"""Attention with relative positions, as in Transformer-XL."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_utils, pax_fiddle
from praxis.layers import attentions
from praxis.layers.attention.masks import mask_from_keep
from praxis.layers.attention.relative import skew

B, T, S, D, N, H, R = 2, 5, 7, 6, 2, 3, 4
KEY = jax.random.key(0)
CACHE = base_layer.DECODE_CACHE
CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}


def build(cls=attentions.DotProductAttentionXL, **fields):
    sizes = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, "rel_pos_emb_dim": R}
    return base_layer.instantiate(pax_fiddle.Config(cls, name="attention", **{**sizes, **fields}))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def random_params(layer, *args):
    shapes = jax.eval_shape(layer.init, KEY, *args)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    arrays = [normal(*leaf.shape, seed=seed) for seed, leaf in enumerate(leaves)]
    return {"params": jax.tree.unflatten(tree, [jnp.float32(x) for x in arrays])}


def sinusoid(distance):
    angles = distance * np.array([1.0, 1e-4])  # of R / 2 = 2 timescales, 1 and 10000
    return np.concatenate([np.sin(angles), np.cos(angles)])


def reference(params, query, source, keep, scale):
    """The formula of the docstring, pair by pair, float64."""
    p = jax.tree.map(np.float64, params)
    heads = {
        name: np.einsum("btd,dnh->btnh", x, p[name]["w"]) + p[name].get("b", 0.0)
        for name, x in (("query", query), ("key", source), ("value", source))
    }
    q = heads["query"] * scale
    u, v = p.get("u", np.zeros([N, H])), p.get("v", np.zeros([N, H]))
    logits = np.zeros([B, N, query.shape[1], source.shape[1]])
    for i in range(query.shape[1]):
        for j in range(source.shape[1]):
            relative = np.einsum("r,rnh->nh", sinusoid(i - j), p["pos_proj"]["w"])
            content = np.sum((q[:, i] + u) * heads["key"][:, j], -1)
            logits[:, :, i, j] = content + np.sum((q[:, i] + v) * relative, -1)
    weights = np.exp(logits - logits.max(-1, keepdims=True)) * keep
    probs = weights / weights.sum(-1, keepdims=True)
    context = np.einsum("bnts,bsnh->btnh", probs, heads["value"])
    output = np.einsum("btnh,dnh->btd", context, p["post"]["w"]) + p["post"].get("b", 0.0)
    return output, probs


@pytest.mark.parametrize("use_bias", [True, False])
def test_matches_numpy(use_bias):
    layer = build(use_bias=use_bias, internal_enable_per_dim_scale=False)
    query, source = normal(B, T, D), normal(B, S, D, seed=1)
    keep = normal(B, 1, T, S, seed=2) > -0.5
    keep[..., 0] = True
    args = (
        jnp.float32(query),
        jnp.float32(source),
        jnp.float32(source),
        mask_from_keep(jnp.asarray(keep)),
    )
    variables = random_params(layer, *args)
    assert ("u" in variables["params"]) == ("v" in variables["params"]) == use_bias
    output, probs = jax.jit(layer.apply)(variables, *args)
    want_output, want_probs = reference(variables["params"], query, source, keep, H**-0.5)
    np.testing.assert_allclose(probs, want_probs, **CLOSE)
    np.testing.assert_allclose(output, want_output, **CLOSE)


def test_steps_equal_the_call():
    layer = build(relative_bias_tpl=pax_fiddle.Config(attentions.RelativeBias))
    x = jnp.float32(normal(B, T, D))
    mask = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, mask)

    @jax.jit
    def call(x, mask):
        return layer.apply(variables, x, x, x, mask, mutable=[CACHE])

    (want, _), _ = call(x, mask)
    _, cache = call(x[:, :2], mask[:, :, :2, :2])
    _, cache = layer.apply(
        {**variables, **cache},
        decoder_utils.pad_state_fn(T - 2),
        method="transform_decode_state",
        mutable=[CACHE],
    )
    step_fn = jax.jit(
        lambda variables, x, mask, step: layer.apply(
            variables,
            x,
            atten_mask=mask,
            time_step=step,
            segment_pos=None,
            method="extend_step",
            mutable=[CACHE],
        )
    )
    for step in range(2, T):
        got, cache = step_fn({**variables, **cache}, x[:, step], mask[:, :, step], step)
        np.testing.assert_allclose(got, want[:, step], **CLOSE)


@pytest.mark.parametrize("num_rows", [1, 2, 5])
def test_skew_moves_rows(num_rows):
    x = normal(2, 3, num_rows, num_rows + 3)
    got = skew(jnp.float32(x))
    for row in range(num_rows):
        first = num_rows - 1 - row
        np.testing.assert_array_equal(got[:, :, row], np.float32(x[:, :, row, first : first + 4]))


@pytest.mark.parametrize("cls", [attentions.DotProductAttentionXL, attentions.LocalSelfAttentionXL])
def test_a_missing_width_is_named(cls):
    local = {} if cls is attentions.DotProductAttentionXL else {"left_context": 2}
    if local:
        local["right_context"] = 0
    layer = build(cls, rel_pos_emb_dim=0, **local)
    x = jnp.ones([B, T, D])
    with pytest.raises(ValueError, match=r"XL 'attention': rel_pos_emb_dim is 0, expected at le"):
        layer.init(KEY, x, x, x, attentions.causal_mask(x))


def test_variables_are_sharded_by_heads():
    config = pax_fiddle.Config(attentions.DotProductAttentionXL, name="attention")
    config.set(input_dim=D, hidden_dim=N * H, num_heads=N, rel_pos_emb_dim=R)
    config.weight_split_dims_mapping.proj = ["data", "mdl", None]
    config.set(mesh_axis_names=["data", "mdl"], ici_mesh_shape=[1, 2])
    x = jnp.ones([B, T, D])
    layer = base_layer.instantiate(config)
    params = layer.abstract_init_with_metadata(x, x, x, attentions.causal_mask(x))["params"]
    for name in ("u", "v"):
        assert list(params[name].tensor_split_dims_mapping) == ["mdl", None]
    assert list(params["pos_proj"]["w"].tensor_split_dims_mapping) == ["data", "mdl", None]


def test_caches_are_made_by_calls():
    layer = build()
    with pytest.raises(NotImplementedError, match="DotProductAttentionXL 'attention': init_stat"):
        layer.init_states(B, T)

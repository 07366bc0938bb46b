"""Grouped-query attention: against NumPy, decoding against the full pass, masks that hide."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions, gpu_fast_attention, grouped_query_attention
from praxis.layers.attention.mask_spec import AttentionMask

B, T, D, N, H = 2, 5, 7, 6, 4
KEY = jax.random.PRNGKey(0)
CACHE = base_layer.DECODE_CACHE
CLOSE: Any = {"rtol": 2e-5, "atol": 2e-5}
GroupedQueryAttention = grouped_query_attention.GroupedQueryAttention
Fused = gpu_fast_attention.GpuCudnnFusedGroupedQueryAttention


def build(cls=GroupedQueryAttention, **fields):
    fields = {"input_dim": D, "num_heads": N, "dim_per_head": H, **fields}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="att", **fields))


def inputs(seed=0, shape=(B, T, D)):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def variables_of(layer, x):
    """Variables of the layer, all away from their first values."""
    mask = grouped_query_attention.causal_mask(x.shape[1])
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: layer.init(KEY, x, x, x, mask)))
    keys = jax.random.split(jax.random.PRNGKey(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(
        tree, [0.5 * jax.random.normal(k, y.shape, y.dtype) for k, y in pairs]
    )


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_matches_numpy(num_kv_heads):
    """8: cap and temperature; probabilities are [B, K, G, T, S]."""
    layer, x = build(num_kv_heads=num_kv_heads, atten_logit_cap=0.8, atten_temp=0.5), inputs()
    variables = variables_of(layer, x)
    out, probs = layer.apply(variables, x, x, x, grouped_query_attention.causal_mask(T))

    p = jax.tree.map(np.float64, variables["params"])
    q = np.tensordot(np.float64(x), p["query"]["w"], 1) + p["query"]["b"]
    k, v = (np.tensordot(np.float64(x), p[n]["w"], 1) + p[n]["b"] for n in ("key", "value"))
    k, v = (np.repeat(y.reshape(B, T, num_kv_heads, H), N // num_kv_heads, 2) for y in (k, v))
    logits = 0.8 * np.tanh(np.einsum("btnh,bsnh->bnts", q, k) * H**-0.5 / 0.5 / 0.8)
    weights = np.exp(logits) * np.tril(np.ones([T, T]))
    want = weights / weights.sum(-1, keepdims=True)
    context = np.einsum("bnts,bsnh->btnh", want, v)
    np.testing.assert_allclose(
        out, np.einsum("btnh,dnh->btd", context, p["post"]["w"]) + p["post"]["b"], **CLOSE
    )
    shape = (B, num_kv_heads, N // num_kv_heads, T, T)
    np.testing.assert_allclose(probs, want.reshape(shape), **CLOSE)


def test_masks_of_all_kinds_hide_the_same():
    """8: True hides; additive masks, whose hidden places are not 0, and lazy masks agree."""
    layer, x = build(num_kv_heads=2), inputs()
    variables = variables_of(layer, x)
    masks = (
        grouped_query_attention.causal_mask(T),
        attentions.causal_mask(x),
        AttentionMask(target_len=T, source_len=T, causal=True),
        grouped_query_attention.causal_mask(T).astype(jnp.int32),
    )
    first, *others = (layer.apply(variables, x, x, x, mask)[0] for mask in masks)
    for other in others:
        np.testing.assert_allclose(other, first, **CLOSE)


@pytest.mark.parametrize("num_kv_heads", [1, 3])
@pytest.mark.parametrize("rope", [None, (1, 100)])
@pytest.mark.parametrize("block", [None, 5])
def test_decoding_equals_the_full_pass(num_kv_heads, rope, block):
    """28, grouped_query_attention: fprop = extend_step, RoPE on and off; also several steps."""
    layer = build(num_kv_heads=num_kv_heads, rope_min_max_timescales=rope, atten_logit_cap=2.0)
    x = inputs()
    segments = jnp.array([[1, 1, 2, 2, 2], [1, 1, 1, 1, 1]])
    positions = jnp.array([[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]])
    masks = grouped_query_attention.attention_mask(segments)
    variables = variables_of(layer, x)
    (full, _), whole = layer.apply(variables, x, x, x, masks, positions, positions, mutable=[CACHE])
    zeros = jnp.zeros_like(x)
    _, cache = layer.apply(variables, zeros, zeros, zeros, masks, mutable=[CACHE])
    assert cache[CACHE]["key_state"].shape == (B, T, num_kv_heads, H)
    assert layer.apply({**variables, **cache}, method="decoding_state_sequence_length") == T
    outs = []
    for t in range(0, T, block or 1):
        steps = slice(t, t + block) if block else t
        out, cache = layer.apply(
            {**variables, **cache},
            x[:, steps],
            atten_mask=masks[:, :, steps],
            time_step=t,
            segment_pos=positions[:, steps],
            method="extend_step",
            mutable=[CACHE],
        )
        outs.append(out if block else out[:, jnp.newaxis])
    np.testing.assert_allclose(jnp.concatenate(outs, axis=1), full, **CLOSE)
    for name, state in whole[CACHE].items():
        np.testing.assert_allclose(cache[CACHE][name], state, **CLOSE)


def test_cross_attention_reads_the_cache():
    layer, x, source = build(num_kv_heads=2), inputs(), inputs(1, (B, 11, D))
    variables = variables_of(layer, x)
    mask = jnp.zeros([1, 1, 1, 11], jnp.bool)
    (full, _), cache = layer.apply(variables, x, source, source, mask, mutable=[CACHE])
    out = layer.apply(
        {**variables, **cache},
        x[:, 3],
        atten_mask=mask[:, 0],
        time_step=3,
        segment_pos=None,
        is_cross_attention=True,
        method="extend_step",
    )
    np.testing.assert_allclose(out, full[:, 3], **CLOSE)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_fused_layer_honours_masks(is_causal):
    """6.10: masks were ignored; without a GPU the same numbers come out."""
    x = inputs()
    hidden = grouped_query_attention.padding_mask(jnp.zeros([B, T]).at[1, 3:].set(1.0))
    whole = hidden.astype(jnp.bool)
    if is_causal:
        whole |= grouped_query_attention.causal_mask(T)
    plain, fused = build(num_kv_heads=2), build(Fused, num_kv_heads=2, is_causal=is_causal)
    variables = variables_of(plain, x)
    out, probs = fused.apply(variables, x, x, x, hidden)
    assert probs is None
    np.testing.assert_allclose(out, plain.apply(variables, x, x, x, whole)[0], **CLOSE)


def test_the_fused_layer_refuses_what_a_kernel_does_not_compute():
    x, mask = inputs(), grouped_query_attention.causal_mask(T)
    with pytest.raises(ValueError, match="'att': atten_logit_cap is set, which a fused kernel"):
        build(Fused, atten_logit_cap=1.0).init(KEY, x, x, x, mask)
    with pytest.raises(NotImplementedError, match=r"atten_dropout_prob = 0\.5 in training"):
        build(Fused, atten_dropout_prob=0.5).init(KEY, x, x, x, mask)


def test_mask_functions():
    """8: True hides."""
    ids = jnp.array([[1, 1, 2]])
    other = np.asarray(ids)[:, :, np.newaxis] != np.asarray(ids)[:, np.newaxis]
    np.testing.assert_array_equal(grouped_query_attention.segment_mask(ids)[:, 0], other)
    np.testing.assert_array_equal(
        grouped_query_attention.attention_mask(ids)[:, 0], other | ~np.tril(np.ones([3, 3], bool))
    )
    logits = inputs(shape=(1, 2, 3, 3, 3))
    masked = grouped_query_attention.apply_mask(logits, grouped_query_attention.causal_mask(3))
    seen = np.tril(np.ones([3, 3], bool))
    np.testing.assert_array_equal(masked[..., seen], logits[..., seen])
    assert np.all(masked[..., ~seen] < -1e38)


def test_dropout_keeps_the_mean_and_shares_along_axes():
    x = jnp.ones([400, 7])
    dropped = grouped_query_attention.apply_dropout(x, KEY, 0.25, broadcast_dims=(-1,))
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], 7, axis=1))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.1)  # three deviations of 400 draws
    np.testing.assert_array_equal(grouped_query_attention.apply_dropout(x, KEY, 0.0), x)


@pytest.mark.parametrize("rank", [3, 4])
def test_rope_depends_on_distances_alone(rank):
    """8: as 5.9; in the dtype of the inputs."""
    shape = (2, 3, H) if rank == 3 else (2, 3, 5, H)
    q, k = inputs(1, shape), inputs(2, shape)
    rotate = lambda y, shift: grouped_query_attention.apply_rope(  # noqa: E731
        y, 1, 50, jnp.arange(3)[jnp.newaxis] + shift
    )
    first, second = (jnp.sum(rotate(q, shift) * rotate(k, shift + 2), axis=-1) for shift in (0, 4))
    np.testing.assert_allclose(first, second, **CLOSE)
    assert grouped_query_attention.apply_rope(q.astype(jnp.bfloat16), 1, 50).dtype == jnp.bfloat16
    np.testing.assert_allclose(rotate(q, 0), grouped_query_attention.apply_rope(q, 1, 50), **CLOSE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_dim": 0}, "GroupedQueryAttention 'att': input_dim is 0"),
        ({"dim_per_head": 0}, "dim_per_head is 0"),
        ({"num_kv_heads": 4}, "num_heads = 6 is not a multiple of num_kv_heads = 4"),
        ({"atten_temp": 0.0}, "atten_temp is 0.0, expected a temperature above 0"),
        ({"dim_per_head": 3, "rope_min_max_timescales": (1, 9)}, "expected an even number"),
        ({"atten_logit_cap": -1.0}, "atten_logit_cap is -1.0"),
        ({"implementation": "fast"}, "implementation is 'fast'"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields, message):
    x = inputs()
    with pytest.raises(ValueError, match=message):
        build(**fields).init(KEY, x, x, x, grouped_query_attention.causal_mask(T))


def test_wrong_shapes_are_refused():
    layer, x = build(), inputs()
    variables = variables_of(layer, x)
    with pytest.raises(ValueError, match=r"inputs have shape \(2, 5, 8\).*input_dim = 7"):
        wide = inputs(shape=(B, T, D + 1))
        layer.apply(variables, wide, wide, wide, grouped_query_attention.causal_mask(T))
    with pytest.raises(ValueError, match=r"atten_mask has shape \(1, 1, 4, 4\)"):
        layer.apply(variables, x, x, x, grouped_query_attention.causal_mask(4))

"""Decoding with multi-query and grouped-query attention against the full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from multi_query_cases import (
    CACHE,
    CLOSE,
    LPB,
    B,
    D,
    T,
    apply,
    build,
    causal_keep,
    inputs,
    random_params,
    relative_bias,
)

from praxis import base_layer, decoder_utils, pax_fiddle
from praxis.layers import attentions, normalizations

DECODING = {
    "plain": {},
    "groups_rotary_cap": {
        "num_kv_heads": 2,
        "use_rotary_position_emb": True,
        "atten_logit_cap": 1.0,
    },
    "consolidated_qk_norm": {
        "use_rotary_position_emb": True,
        "consolidate_rope_key_state": True,
        "ln_tpl": pax_fiddle.Config(normalizations.RmsNorm),
    },
    "window": {"local_window_size": (2, 0), "zero_fully_masked": True},
    "window_groups_bias": {
        "local_window_size": (1, 1),
        "num_kv_heads": 3,
        "relative_bias_tpl": relative_bias(),
        "attention_extra_logit": 0.5,
    },
    "scales": {
        "scale_logits_by_head_dims": True,
        "output_proj_use_nhd_shape": True,
        "hidden_dim": 12,
        "dim_per_head": 2,
    },
}


def run_steps(layer, variables, cache, x, masks, *, first=0, positions=None, block=None):
    """Runs extend_step from a step on, one step or `block` of them at a time."""

    @jax.jit
    def step(cache, t):
        size = block or 1
        take = lambda y, axis: jax.lax.dynamic_slice_in_dim(y, t, size, axis)  # noqa: E731
        query, mask = take(x, 1), take(masks, 2)
        pos = None if positions is None else take(positions, 1)
        if block is None:
            query, mask, pos = query[:, 0], mask[:, :, 0], None if pos is None else pos[:, 0]
        return layer.apply(
            {**variables, **cache},
            query,
            atten_mask=mask,
            time_step=t,
            segment_pos=pos,
            method="extend_step",
            mutable=[CACHE],
        )

    outs = []
    for t in range(first, x.shape[1], block or 1):
        out, cache = step(cache, t)
        outs.append(out[:, np.newaxis] if block is None else out)
    return jnp.concatenate(outs, axis=1), cache


def empty_cache(layer, variables, x, masks):
    zeros = jnp.zeros_like(x)
    return apply(layer, variables, zeros, zeros, zeros, masks, mutable=[CACHE])[1]


PACKED_IDS = jnp.array([[1, 1, 2, 2, 2, 3, 3], [1, 1, 1, 1, 0, 0, 0]])
PACKED_POS = jnp.array([[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 1, 2]])


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("plain", False),
        ("groups_rotary_cap", True),
        ("consolidated_qk_norm", True),
        ("window", False),
        ("window", True),
        ("window_groups_bias", False),
        ("scales", True),
    ],
)
def test_decoding_equals_the_full_pass(name, packed):
    """28, multi_query_attention: fprop = extend_step; windows and zero_fully_masked included."""
    layer, x = build(**DECODING[name]), inputs()
    ids = PACKED_IDS if packed else jnp.ones([B, T], jnp.int32)
    positions = PACKED_POS if packed else None
    masks = attentions.causal_segment_mask(ids)
    variables = random_params(layer, x, x, x, masks)
    (full, _), cache = apply(
        layer, variables, x, x, x, masks, positions, positions, mutable=[CACHE]
    )
    empty = empty_cache(layer, variables, x, masks)
    out, decoded = run_steps(layer, variables, empty, x, masks, positions=positions)
    np.testing.assert_allclose(out, full, **CLOSE)
    num_kv_heads = DECODING[name].get("num_kv_heads", 1)
    shape = (B, T) + ((num_kv_heads,) if num_kv_heads > 1 else ()) + (layer.head_dims,)
    assert {k: v.shape for k, v in cache[CACHE].items()} == {
        "key_state": shape,
        "value_state": shape,
    }
    for state, expected in cache[CACHE].items():
        np.testing.assert_allclose(decoded[CACHE][state], expected, **CLOSE)


@pytest.mark.parametrize(("num_kv_heads", "window"), [(1, None), (1, (2, 0)), (2, (2, 0))])
def test_several_steps_at_once(num_kv_heads, window):
    """28, multi_query_attention: n-step extension; also with K > 1, windows and rotation."""
    layer = build(num_kv_heads=num_kv_heads, local_window_size=window, use_rotary_position_emb=True)
    x = inputs(shape=(B, 6, D))
    masks = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, masks)
    full, _ = apply(layer, variables, x, x, x, masks)
    empty = empty_cache(layer, variables, x, masks)
    out, _ = run_steps(layer, variables, empty, x, masks, block=3)
    np.testing.assert_allclose(out, full, **CLOSE)


@pytest.mark.parametrize(("dtype", "num_kv_heads"), [("bfloat16", 1), ("int8", 2)])
def test_narrow_caches(dtype, num_kv_heads):
    layer, x = build(decode_cache_dtype=dtype, num_kv_heads=num_kv_heads), inputs()
    masks = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, masks)
    full, _ = apply(layer, variables, x, x, x, masks)
    empty = empty_cache(layer, variables, x, masks)
    out, cache = run_steps(layer, variables, empty, x, masks)
    assert cache[CACHE]["key_state"].dtype == jnp.dtype(dtype)
    # 8 bits of keys and values.
    np.testing.assert_allclose(out, full, rtol=0.05, atol=0.05)
    assert np.abs(out - full).max() > 1e-5


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_cross_attention_shares_a_cached_row(num_kv_heads):
    """28: cross attention with a cache of batch b and queries 2b."""
    layer = build(num_kv_heads=num_kv_heads, input_dim={"query": D, "key": 3, "value": 8})
    key, value = inputs(1, (B, 11, 3)), inputs(2, (B, 11, 8))
    query = inputs(3, (2 * B, 1, D))
    mask = attentions.convert_paddings_to_mask(jnp.zeros([B, 11]).at[1, 4:].set(1.0))
    twice = lambda y: jnp.repeat(y, 2, axis=0)  # noqa: E731
    variables = random_params(layer, query[:B], key, value, mask)
    expected, _ = apply(layer, variables, query, twice(key), twice(value), twice(mask))
    _, cache = apply(layer, variables, query[:B], key, value, mask, mutable=[CACHE])
    out = layer.apply(
        {**variables, **cache},
        query[:, 0],
        atten_mask=mask[:, 0],
        time_step=3,
        segment_pos=None,
        is_cross_attention=True,
        method="extend_step",
    )
    np.testing.assert_allclose(out, expected[:, 0], **CLOSE)


LENGTHS = jnp.array([3, 5])
PROMPT, MORE = 5, 6


def transform(layer, variables, cache, fn):
    def transformed(variables):
        return layer.apply(variables, fn, method="transform_decode_state", mutable=[CACHE])[1]

    return jax.jit(transformed)({**variables, **cache})


@pytest.mark.parametrize(
    ("num_kv_heads", "dtype", "window", "block"),
    [
        (2, "int8", (2, 0), None),
        (2, None, (3, 0), 2),
        (1, None, (1, 1), 3),
    ],
)
def test_a_cache_of_the_window_gives_what_a_whole_cache_gives(num_kv_heads, dtype, window, block):
    """Prompts of other lengths are aligned, repeated and continued, as in sampling."""
    fields = {
        "num_kv_heads": num_kv_heads,
        "local_window_size": window,
        "use_rotary_position_emb": True,
        "decode_cache_dtype": dtype,
    }
    prompt, more = inputs(shape=(B, PROMPT, D)), inputs(1, (2 * B, PROMPT + MORE, D))
    step = jnp.arange(PROMPT + MORE)[jnp.newaxis, jnp.newaxis, jnp.newaxis]
    starts = jnp.repeat(PROMPT - LENGTHS, 2)[:, jnp.newaxis, jnp.newaxis, jnp.newaxis]
    masks = jnp.asarray(causal_keep(PROMPT + MORE)) & (step >= starts)
    outs, caches = [], []
    for window_only in (False, True):
        layer = build(decode_cache_window_only=window_only, **fields)
        prompt_mask = attentions.causal_mask(prompt)
        variables = random_params(layer, prompt, prompt, prompt, prompt_mask)
        _, cache = apply(layer, variables, prompt, prompt, prompt, prompt_mask, mutable=[CACHE])
        for fn in (
            decoder_utils.right_align_state_fn(LENGTHS),
            decoder_utils.batch_broadcast_state_fn(2),
            decoder_utils.pad_state_fn(MORE),
        ):
            cache = transform(layer, variables, cache, fn)
        length = layer.apply({**variables, **cache}, method="decoding_state_sequence_length")
        assert length == PROMPT + MORE
        out, cache = run_steps(layer, variables, cache, more, masks, first=PROMPT, block=block)
        outs.append(out)
        caches.append(cache[CACHE])
    np.testing.assert_allclose(outs[1], outs[0], **CLOSE)
    sizes = [cache["key_state"].shape[1] for cache in caches]
    assert sizes == [PROMPT + MORE, window[0] + 1]


def test_beams_reorder_a_cache_of_the_window():
    """A change of rows between steps finds the steps that the ring holds."""
    x = inputs(shape=(B, 9, D))
    masks = jnp.asarray(causal_keep(9))
    swap = lambda state, batch_dim, time_dim: jnp.flip(state, batch_dim)  # noqa: E731
    outs = []
    for window_only in (False, True):
        layer = build(local_window_size=(3, 0), decode_cache_window_only=window_only)
        head = x[:, :4]
        variables = random_params(layer, head, head, head, masks[..., :4, :4])
        _, cache = apply(layer, variables, head, head, head, masks[..., :4, :4], mutable=[CACHE])
        cache = transform(layer, variables, cache, decoder_utils.pad_state_fn(5))
        _, cache = run_steps(layer, variables, cache, x[:, :6], masks, first=4)
        cache = transform(layer, variables, cache, swap)
        outs.append(run_steps(layer, variables, cache, x, masks, first=6)[0])
    np.testing.assert_allclose(outs[1], outs[0], **CLOSE)


BOTH = [CACHE, base_layer.PREFIX_DECODE_CACHE]


@pytest.mark.parametrize(
    ("fields", "block"),
    [
        ({}, 2),
        ({"num_kv_heads": 2, "use_rotary_position_emb": True}, None),
        (
            {
                "local_window_size": (2, 0),
                "zero_fully_masked": True,
                "decode_cache_dtype": "float32",
            },
            2,
        ),
    ],
    ids=["plain_blocks", "groups_rotary", "window_blocks"],
)
def test_samples_share_prompts(fields, block):
    """28: prefill of 3, lazy broadcast x2 (suffix 2), then x3: samples equal the full forward.

    6.8 and 7: windows and zero_fully_masked count here too (they did not).
    """
    layer = build(LPB, **fields)
    prompt, second, third = (
        inputs(i, (B * m, t, D)) for i, m, t in ((0, 1, 3), (1, 2, 2), (2, 6, 4))
    )
    whole = jnp.concatenate(
        [jnp.repeat(prompt, 6, axis=0), jnp.repeat(second, 3, axis=0), third], axis=1
    )
    masks = jnp.asarray(causal_keep(9))
    variables = random_params(layer, prompt, prompt, prompt, masks[..., :3, :3])
    expected, _ = apply(layer, variables, whole, whole, whole, masks)

    _, cache = apply(layer, variables, prompt, prompt, prompt, masks[..., :3, :3], mutable=[CACHE])
    for samples, length, first, rows in ((2, 2, 3, 3), (3, 4, 5, 1)):
        broadcast = functools.partial(layer.apply, method="lazy_broadcast_prefix", mutable=BOTH)
        _, cache = jax.jit(broadcast, static_argnums=(1, 2))(
            {**variables, **cache}, samples, length
        )
        frozen = {name: tree for name, tree in cache.items() if name != CACHE}
        total = first + length
        assert total == layer.apply({**variables, **cache}, method="decoding_state_sequence_length")
        out, changed = run_steps(
            layer,
            {**variables, **frozen},
            {CACHE: cache[CACHE]},
            whole[::rows, :total],
            masks[..., :total, :total],
            first=first,
            block=block,
        )
        cache = {**frozen, **changed}
        np.testing.assert_allclose(out, expected[::rows, first:total], **CLOSE)
    assert cache[CACHE]["key_state"].shape[:4] == (B, 2, 3, 4)
    prefixes = cache[base_layer.PREFIX_DECODE_CACHE]
    assert prefixes["key_state_0_pfx"].shape[:2] == (B, 3)
    assert prefixes["value_state_1_pfx"].shape[:3] == (B, 2, 2)


def step_error(layer, query, mask, **kwargs):
    """The text of the error of a step on a cache of the inputs."""
    x = inputs()
    masks = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, masks)
    cache = empty_cache(layer, variables, x, masks)
    if kwargs.pop("cut", False):
        cache = transform(layer, variables, cache, lambda state, batch_dim, time_dim: state)
    step = {"atten_mask": mask, "time_step": 0, "segment_pos": None, **kwargs}
    with pytest.raises(ValueError) as caught:
        layer.apply({**variables, **cache}, query, method="extend_step", mutable=[CACHE], **step)
    return str(caught.value)


def test_steps_of_wrong_shapes_are_refused():
    mask = jnp.zeros([1, 1, T])
    text = step_error(build(), inputs(shape=(B, 1, 1, D)), mask)
    assert "query_vec has shape (2, 1, 1, 5), expected [B, D]" in text
    text = step_error(build(), inputs(shape=(B, D)), jnp.zeros([1, 1, T + 1]))
    assert "atten_mask has shape (1, 1, 8), expected [B, 1, S] = (2, 1, 7)" in text
    text = step_error(build(), inputs(shape=(3, D)), mask)
    assert "a batch of 2, but extend_step got a batch of 3" in text
    windowed = build(local_window_size=(1, 0), decode_cache_window_only=True)
    text = step_error(windowed, inputs(shape=(B, D)), mask, is_cross_attention=True, cut=True)
    assert "the cache keeps a window alone" in text

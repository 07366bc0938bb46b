"""Multi-query and grouped-query attention against NumPy, and decoding against the full pass."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_utils, pax_fiddle
from praxis.layers import attentions, base_ops, multi_query_attention, normalizations
from praxis.layers.attention.mask_spec import AttentionMask

B, T, D, N, H = 2, 7, 5, 6, 4
KEY = jax.random.PRNGKey(0)
CACHE = base_layer.DECODE_CACHE
CLOSE: Any = {"rtol": 2e-5, "atol": 2e-5}


def build(cls: Any = multi_query_attention.MultiQueryDotProductAttention, **fields):
    fields = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, **fields}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="att", **fields))


def inputs(seed=0, shape=(B, T, D)):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def random_params(layer, *args):
    """Variables of the layer, all away from their first values."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: layer.init(KEY, *args)))
    keys = jax.random.split(jax.random.PRNGKey(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(
        tree, [0.5 * jax.random.normal(k, x.shape, x.dtype) for k, x in pairs]
    )


def apply(layer, variables, *args, **options):
    """`layer.apply` as one compiled program."""
    return jax.jit(lambda variables, args: layer.apply(variables, *args, **options))(
        variables, args
    )


def causal_keep(length=T, window=None):
    """[1, 1, T, T], in NumPy."""
    ahead = np.arange(length)[np.newaxis] - np.arange(length)[:, np.newaxis]
    keep = ahead <= 0
    if window is not None:
        keep &= (ahead >= -window[0]) & (ahead <= window[1])
    return keep[np.newaxis, np.newaxis]


def reference(params, x, keep, *, cap=0.0, extra=None, scale=H**-0.5, zero_blind=False):
    """Attention of x to itself in NumPy, float64: each key-value head is repeated."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.float64(x)
    q = np.einsum("btd,dnh->btnh", x, p["query"]["w"]) + p["query"]["b"]
    k, v = (np.tensordot(x, p[name]["w"], 1) + p[name]["b"] for name in ("key", "value"))
    k, v = (y[:, :, np.newaxis] if y.ndim == 3 else y for y in (k, v))
    k, v = (np.repeat(y, N // y.shape[2], axis=2) for y in (k, v))
    logits = np.einsum("btnh,bsnh->bnts", q * scale, k)
    if cap:
        logits = cap * np.tanh(logits / cap)
    # A query that sees nothing gives the same weight to all.
    weights = np.where(keep, np.exp(logits), np.where(keep.any(-1, keepdims=True), 0.0, 1.0))
    total = weights.sum(-1, keepdims=True) + (0.0 if extra is None else np.exp(extra))
    probs = weights / total
    context = np.einsum("bnts,bsnh->btnh", probs, v)
    if zero_blind:
        context = context * np.swapaxes(keep.any(-1, keepdims=True), 1, 2)
    return np.einsum("btnh,dnh->btd", context, p["post"]["w"]) + p["post"]["b"], probs


OPTIONS = {
    "plain": ({}, {}),
    "cap_extra": (
        {"atten_logit_cap": 0.7, "attention_extra_logit": 0.3},
        {"cap": 0.7, "extra": 0.3},
    ),
    "no_scale": ({"internal_enable_query_scale": False}, {"scale": 1.0}),
    "logits_scale": ({"scale_logits_by_head_dims": True}, {"scale": 1 / H}),
    "old_scale": ({"hidden_dim": 12, "dim_per_head": H}, {"scale": 2**-0.5}),
    "new_scale": (
        {"hidden_dim": 12, "dim_per_head": H, "scale_query_by_dim_per_head": True},
        {},
    ),
}


@pytest.mark.parametrize("num_kv_heads", [1, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_matches_numpy(name, num_kv_heads):
    """7: shared keys and values; probabilities are [B, N, T, S] for K > 1 too (a published bug)."""
    fields, expected = OPTIONS[name]
    layer = build(num_kv_heads=num_kv_heads, **fields)
    x, mask = inputs(), attentions.causal_mask(inputs())
    variables = random_params(layer, x, x, x, mask)
    out, probs = apply(layer, variables, x, x, x, mask)
    want_out, want_probs = reference(variables["params"], x, causal_keep(), **expected)
    np.testing.assert_allclose(out, want_out, **CLOSE)
    np.testing.assert_allclose(probs, want_probs, **CLOSE)


@pytest.mark.parametrize(
    ("num_kv_heads", "zero_blind", "lazy"),
    [(1, False, False), (1, True, True), (3, False, True), (3, True, False)],
)
def test_windows_hide_keys_and_queries_may_see_nothing(num_kv_heads, zero_blind, lazy):
    """7: local_window_size is intersected with the mask; 6.7: zero_fully_masked."""
    window = (2, 1)
    keep = np.ones([1, 1, T, T], bool)
    keep[..., :3] = False  # so that query 1, which sees 0 to 2, sees nothing
    mask = jnp.asarray(keep)
    if lazy:
        paddings = jnp.asarray(~keep[0, 0, :1], jnp.float32)
        mask = AttentionMask(target_len=T, source_len=T, key_paddings=paddings, window=(None, 3))
    layer = build(num_kv_heads=num_kv_heads, local_window_size=window, zero_fully_masked=zero_blind)
    x = inputs()
    variables = random_params(layer, x, x, x, mask)
    out, probs = apply(layer, variables, x, x, x, mask)
    ahead = np.arange(T)[np.newaxis] - np.arange(T)[:, np.newaxis]
    keep = keep & ((ahead >= -2) & (ahead <= 1))
    assert not keep[0, 0, 1].any()
    want, want_probs = reference(variables["params"], x, keep, zero_blind=zero_blind)
    np.testing.assert_allclose(out, want, **CLOSE)
    np.testing.assert_allclose(probs, want_probs, **CLOSE)


def test_as_many_kv_heads_as_heads_is_multi_head_attention():
    """28, multi_query_attention: K = N with copied weights equals multi-head."""
    layer = build(num_kv_heads=N)
    plain = build(attentions.DotProductAttention, internal_enable_per_dim_scale=False)
    x, mask = inputs(), attentions.causal_mask(inputs())
    variables = random_params(layer, x, x, x, mask)
    expected = apply(plain, variables, x, x, x, mask)
    for got, want in zip(apply(layer, variables, x, x, x, mask), expected, strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


def relative_bias():
    return pax_fiddle.Config(
        attentions.RelativeBias,
        relative_attention_num_buckets=6,
        relative_attention_max_distance=5,
    )


@pytest.mark.parametrize(("num_kv_heads", "window"), [(1, None), (2, (3, 0)), (2, (1, 2))])
def test_chunks_equal_the_whole(num_kv_heads, window):
    """28: chunked = unchunked for causal masks, with an extra logit too (a published bug)."""
    fields = {
        "num_kv_heads": num_kv_heads,
        "local_window_size": window,
        "attention_extra_logit": 0.5,
        "relative_bias_tpl": relative_bias(),
    }
    x = inputs(shape=(B, 8, D))
    paddings = jnp.zeros([B, 8]).at[1, 6:].set(1.0)
    mask = attentions.merge_masks(
        attentions.causal_mask(x), attentions.convert_paddings_to_mask(paddings)
    )
    whole, chunked = build(**fields), build(chunked_attn_num_seq_split=4, **fields)
    variables = random_params(whole, x, x, x, mask)
    want, _ = apply(whole, variables, x, x, x, mask)
    out, probs = apply(chunked, variables, x, x, x, mask)
    assert probs is None
    real = np.asarray(paddings) == 0  # padded queries see nothing: any mean will do
    np.testing.assert_allclose(out[real], want[real], **CLOSE)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_blockwise_equals_reference(num_kv_heads):
    fields = {"num_kv_heads": num_kv_heads, "local_window_size": (3, 1), "atten_logit_cap": 2.0}
    x, mask = inputs(), attentions.causal_mask(inputs())
    plain, blockwise = (build(implementation=i, **fields) for i in ("reference", "blockwise"))
    variables = random_params(plain, x, x, x, mask)
    want, _ = apply(plain, variables, x, x, x, mask)
    out, probs = apply(blockwise, variables, x, x, x, mask)
    assert probs is None
    np.testing.assert_allclose(out, want, **CLOSE)


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


LPB = multi_query_attention.MultiQueryDotProductAttentionLPB
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


def test_gaussian_init_is_read():
    """7: internal_gshard_gaussian_init had no effect."""
    layer = build(internal_gshard_gaussian_init=True, input_dim=61, num_kv_heads=2)
    x = inputs(shape=(1, 2, 61))
    params = layer.init(KEY, x, x, x, jnp.zeros([1, 1, 1, 2]))["params"]
    stds = {"query": (61 * H) ** -0.5, "key": 61**-0.5, "post": (N * H) ** -0.5}
    for name, std in stds.items():
        # Hundreds of numbers.
        np.testing.assert_allclose(jnp.std(params[name]["w"]), std, rtol=0.15)


def test_sharding_of_variables():
    """7: `proj_headless` is for the one key-value head, `proj` for what has heads."""
    found = []
    for num_kv_heads in (1, 2):
        config = pax_fiddle.Config(
            multi_query_attention.MultiQueryDotProductAttention,
            input_dim=D,
            hidden_dim=N * H,
            num_heads=N,
            num_kv_heads=num_kv_heads,
            output_proj_use_nhd_shape=True,
            ici_mesh_shape=[2, 4],
            mesh_axis_names=["data", "mdl"],
        )
        config.weight_split_dims_mapping.set(
            proj=["data", "mdl", None], proj_headless=["data", None]
        )
        x = inputs()
        params = pax_fiddle.build(config).abstract_init_with_metadata(
            x, x, x, attentions.causal_mask(x)
        )["params"]
        names = ("query", "key", "post")
        found.append([params[name]["w"].tensor_split_dims_mapping for name in names])
    heads, nhd = ["data", "mdl", None], ["mdl", None, "data"]
    assert found == [[heads, ["data", None], nhd], [heads, heads, nhd]]


class CountedEinsum(base_ops.EinsumOp):
    """Doubles its results, so that its use shows."""

    def __call__(self, equation, *args):
        return 2.0 * super().__call__(equation, *args)


def test_an_injected_einsum_is_used():
    x, mask = inputs(), attentions.causal_mask(inputs())
    layer = build(pv_einsum_tpl=pax_fiddle.Config(CountedEinsum), use_bias=False)
    variables = random_params(layer, x, x, x, mask)
    plain, _ = apply(build(use_bias=False), variables, x, x, x, mask)
    np.testing.assert_allclose(apply(layer, variables, x, x, x, mask)[0], 2.0 * plain, **CLOSE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_kv_heads": 4},
            "MultiQueryDotProductAttention 'att': num_heads = 6 is not a multiple of num_kv_heads "
            "= 4",
        ),
        ({"num_kv_heads": 0}, "num_kv_heads is 0"),
        ({"combine_qkv": True}, "combine_qkv = True is for DotProductAttention"),
        ({"dconv_qkv": True}, "dconv_qkv = True is for DotProductAttention"),
        ({"chunked_attn_num_seq_split": 0}, "chunked_attn_num_seq_split is 0"),
        (
            {"local_window_size": (-1, 0)},
            r"local_window_size is \(-1, 0\), expected \(left, right\)",
        ),
        ({"local_window_size": (1, 2, 3)}, r"local_window_size is \(1, 2, 3\)"),
        ({"decode_cache_window_only": True}, "decode_cache_window_only = True needs a window"),
        ({"decode_cache_dtype": "int32"}, "decode_cache_dtype is int32"),
        ({"chunked_attn_num_seq_split": 2}, "chunked_attn_num_seq_split = 2 is for self-attention"),
        (
            {"implementation": "blockwise", "atten_dropout_prob": 0.5},
            "implementation = 'blockwise' contradicts atten_dropout_prob = 0.5",
        ),
    ],
)
def test_options_that_contradict_are_refused_by_name(fields, message):
    x = inputs()
    with pytest.raises(ValueError, match=message):
        random_params(build(**fields), x, x, x, attentions.causal_mask(x))


def test_lpb_refuses_a_cache_of_the_window():
    x = inputs()
    layer = build(LPB, local_window_size=(1, 0), decode_cache_window_only=True)
    with pytest.raises(NotImplementedError, match="decode_cache_window_only = True: a prefix"):
        random_params(layer, x, x, x, attentions.causal_mask(x))


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


def test_one_headed_projection():
    """7: [..., D] to [..., H], with the sharding of the bias from that of the weight."""
    cls = multi_query_attention.OneHeadedAttentionProjection
    config = pax_fiddle.Config(
        cls, name="key", input_dim=5, output_dim=3, mesh_axis_names=["data", "mdl"]
    )
    config.weight_split_dims_mapping.wt = ["data", "mdl"]
    layer = pax_fiddle.build(config)
    x = inputs(shape=(2, 7, 5))
    variables = random_params(layer, x)
    w, b = (np.float64(variables["params"][name]) for name in ("w", "b"))
    np.testing.assert_allclose(apply(layer, variables, x), np.matmul(np.float64(x), w) + b, **CLOSE)
    metadata = layer.abstract_init_with_metadata(x)["params"]
    assert metadata["b"].tensor_split_dims_mapping == ["mdl"]
    with pytest.raises(ValueError, match=r"OneHeadedAttentionProjection 'key'.*input_dim = 5"):
        layer.init(KEY, inputs(shape=(2, 4)))
    with pytest.raises(ValueError, match="output_dim is 0"):
        pax_fiddle.build(pax_fiddle.Config(cls, name="key", input_dim=5)).init(KEY, x)

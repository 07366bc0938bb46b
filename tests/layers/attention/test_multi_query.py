"""Multi-query and grouped-query attention against NumPy; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from multi_query_cases import (
    CLOSE,
    KEY,
    LPB,
    B,
    D,
    H,
    N,
    T,
    apply,
    build,
    causal_keep,
    inputs,
    random_params,
    relative_bias,
)

from praxis import pax_fiddle
from praxis.layers import attentions, base_ops, multi_query_attention
from praxis.layers.attention.mask_spec import AttentionMask


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

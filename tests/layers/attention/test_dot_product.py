"""Dot-product attention against NumPy, and decoding against the full pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions, base_ops, normalizations
from praxis.layers.attention import attend
from praxis.layers.attention.cache import write_steps
from praxis.layers.attention.mask_spec import AttentionMask
from praxis.layers.attention.score import cap_logits, softmax

B, T, D, N, H = 2, 5, 6, 3, 4
KEY = jax.random.PRNGKey(0)


def build(**fields):
    fields = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, **fields}
    return pax_fiddle.build(pax_fiddle.Config(attentions.DotProductAttention, name="att", **fields))


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


def reference(params, x, keep, *, cap=0.0, extra=None):
    """Attention of x to itself in NumPy, float64, with per-dim scale."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    q, k, v = (
        np.einsum("btd,dnh->btnh", np.float64(x), p[name]["w"]) + p[name]["b"]
        for name in ("query", "key", "value")
    )
    scale = np.log1p(np.exp(p["per_dim_scale"]["per_dim_scale"])) / np.log(2.0) / np.sqrt(H)
    logits = np.einsum("btnh,bsnh->bnts", q * scale, k)
    if cap:
        logits = cap * np.tanh(logits / cap)
    weights = np.where(keep, np.exp(logits), 0.0)
    total = weights.sum(-1, keepdims=True) + (0.0 if extra is None else np.exp(extra))
    probs = weights / total
    context = np.einsum("bnts,bsnh->btnh", probs, v)
    return np.einsum("btnh,dnh->btd", context, p["post"]["w"]) + p["post"]["b"], probs


@pytest.mark.parametrize("cap", [0.0, 0.7])
@pytest.mark.parametrize("extra", [None, 0.3])
@pytest.mark.parametrize("boolean", [False, True])
def test_matches_numpy(cap, extra, boolean):
    layer = build(atten_logit_cap=cap, attention_extra_logit=extra)
    x, mask = inputs(), attentions.causal_mask(inputs())
    keep = np.tril(np.ones([T, T], bool))[None, None]
    variables = random_params(layer, x, x, x, mask)
    out, probs = layer.apply(variables, x, x, x, jnp.asarray(keep) if boolean else mask)
    want_out, want_probs = reference(variables["params"], x, keep, cap=cap, extra=extra)
    np.testing.assert_allclose(out, want_out, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(probs, want_probs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"internal_enable_query_scale": False}, 1.0),
        ({"internal_enable_per_dim_scale": False}, (N * H // N) ** -0.5),
        ({"internal_enable_per_dim_scale": False, "dim_per_head": 7}, 4**-0.5),
        (
            {
                "internal_enable_per_dim_scale": False,
                "dim_per_head": 7,
                "scale_query_by_dim_per_head": True,
            },
            7**-0.5,
        ),
        ({"internal_enable_query_scale": False, "scale_logits_by_head_dims": True}, 4**-0.5),
    ],
)
def test_scale_of_the_logits(fields, scale):
    """28, attentions: query scale and per-dim scale on and off, scale_logits_by_head_dims."""
    layer = build(use_bias=False, **fields)
    x, mask = inputs(), jnp.zeros([1, 1, 1, T])
    variables = random_params(layer, x, x, x, mask)
    _, probs = layer.apply(variables, x, x, x, mask)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    q, k = (np.einsum("btd,dnh->btnh", np.float64(x), p[n]["w"]) for n in ("query", "key"))
    logits = np.einsum("btnh,bsnh->bnts", q, k) * scale
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probs, expected, rtol=2e-5, atol=2e-5)


def test_queries_that_see_nothing():
    """28, attentions: zero_fully_masked gives the bias of `post` only; else the mean of values."""
    x = inputs()
    mask = jnp.full([1, 1, T, T], base_layer_negative()).at[:, :, 1:].set(0.0)
    layer = build(zero_fully_masked=True)
    variables = random_params(layer, x, x, x, mask)
    out, probs = layer.apply(variables, x, x, x, mask)
    bias = variables["params"]["post"]["b"]
    np.testing.assert_allclose(out[:, 0], np.broadcast_to(bias, (B, D)), rtol=1e-6)
    np.testing.assert_allclose(probs[:, :, 0], 1 / T, rtol=1e-6)
    assert np.abs(out[:, 1] - bias[None]).max() > 1e-3


def base_layer_negative():
    return -0.7 * float(np.finfo(np.float32).max)


class SeenContexts(base_layer.BaseLayer):
    """A layer with the calls of an n-grammer: adds what attention saw among contexts."""

    def __call__(
        self,
        input_ids,
        input_embs,
        paddings=None,
        segment_pos=None,
        merge_heads=True,
        attention_scores=None,
    ):
        assert input_ids is None
        assert not merge_heads
        return input_embs + jnp.einsum("BNTS,BSNH->BTNH", attention_scores, input_embs)

    def extend_step(self, input_embs, step, merge_heads=True, attention_score=None):
        assert not merge_heads
        seen = jnp.einsum("BNS,BSNH->BNH", attention_score, input_embs)
        return jnp.take(input_embs, step, axis=1) + seen


DECODING = {
    "plain": {},
    "rotary": {"use_rotary_position_emb": True},
    "consolidated": {"use_rotary_position_emb": True, "consolidate_rope_key_state": True},
    "rotary_cap_qk_norm": {
        "use_rotary_position_emb": True,
        "atten_logit_cap": 1.0,
        "ln_tpl": pax_fiddle.Config(normalizations.RmsNorm),
    },
    "combined": {"combine_qkv": True, "atten_logit_cap": 2.0, "attention_extra_logit": 0.5},
    "scales": {"internal_enable_per_dim_scale": False, "scale_logits_by_head_dims": True},
    "dconv": {"dconv_qkv": True, "use_rotary_position_emb": True},
    "relative_bias": {
        "relative_bias_tpl": pax_fiddle.Config(
            attentions.RelativeBias,
            relative_attention_num_buckets=6,
            relative_attention_max_distance=4,
        )
    },
    "ngrammer": {"ngrammer_tpl": pax_fiddle.Config(SeenContexts)},
    "nhd": {"output_proj_use_nhd_shape": True, "zero_fully_masked": True, "dim_per_head": 6},
}


class OtherEinsum(base_ops.EinsumOp):
    """An einsum that is injected."""


def decode(layer, variables, x, masks, positions=None):
    """Runs extend_step over time on a cache from a call on zeros; masks are [B, 1, T, T]."""
    zeros = jnp.zeros_like(x)
    _, cache = layer.apply(variables, zeros, zeros, zeros, masks, mutable=["decoder_cache"])

    @jax.jit
    def step(cache, t):
        out, cache = layer.apply(
            {**variables, **cache},
            jnp.take(x, t, axis=1),
            atten_mask=jnp.take(masks, t, axis=2),
            time_step=t,
            segment_pos=None if positions is None else jnp.take(positions, t, axis=1),
            method="extend_step",
            mutable=["decoder_cache"],
        )
        return cache, out

    outs = []
    for t in range(x.shape[1]):
        cache, out = step(cache, t)
        outs.append(out)
    return jnp.stack(outs, axis=1), cache


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", DECODING)
def test_decoding_equals_the_full_pass(name, packed):
    """28, attentions: full attention = extend_step loop, QK norm included (a published bug)."""
    layer = build(**DECODING[name])
    x = inputs()
    ids = jnp.array([[1, 1, 2, 2, 2], [1, 1, 1, 1, 0]] if packed else [[1] * T] * B)
    positions = jnp.array([[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]]) if packed else None
    masks = attentions.causal_segment_mask(ids)
    variables = random_params(layer, x, x, x, masks)
    (full, _), cache = layer.apply(
        variables, x, x, x, masks, positions, positions, mutable=["decoder_cache"]
    )
    out, decoded = decode(layer, variables, x, masks, positions)
    np.testing.assert_allclose(out, full, rtol=2e-5, atol=2e-5)
    # A cache of steps equals that of a pass, and holds each key and value once.
    expected = {"key_state", "value_state"}
    if name == "dconv":
        expected |= {"query_state", "key_post_dconv", "value_post_dconv"}
    if name == "ngrammer":
        expected |= {"encoded_pre_ngrammer"}
    assert set(cache["decoder_cache"]) == expected
    for state, expected in cache["decoder_cache"].items():
        np.testing.assert_allclose(decoded["decoder_cache"][state], expected, rtol=2e-5, atol=2e-5)


def test_decoding_continues_a_longer_cache():
    """A prompt is cached by one call, its cache is made longer, and steps continue it."""
    layer = build(use_rotary_position_emb=True)
    x, prompt = inputs(), 3
    masks = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, masks)
    full, _ = layer.apply(variables, x, x, x, masks)
    head = x[:, :prompt]
    (_, _), cache = layer.apply(
        variables, head, head, head, masks[:, :, :prompt, :prompt], mutable=["decoder_cache"]
    )
    longer = lambda state, batch_dim, time_dim: jnp.pad(  # noqa: E731
        state, [(0, T - prompt) if axis == time_dim else (0, 0) for axis in range(state.ndim)]
    )
    _, cache = layer.apply(
        {**variables, **cache}, longer, method="transform_decode_state", mutable=["decoder_cache"]
    )
    length = layer.apply({**variables, **cache}, method="decoding_state_sequence_length")
    assert length == T
    for t in range(prompt, T):
        out, cache = layer.apply(
            {**variables, **cache},
            x[:, t],
            atten_mask=masks[:, :, t],
            time_step=t,
            segment_pos=None,
            method="extend_step",
            mutable=["decoder_cache"],
        )
        np.testing.assert_allclose(out, full[:, t], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("by_query", [False, True])
def test_cross_attention_shares_a_cached_row(rotary, by_query):
    """28, attentions: cross attention with cached batch b and queries 2b."""
    source_len = 7
    layer = build(use_rotary_position_emb=rotary)
    source = inputs(1, (B, source_len, D))
    query = inputs(2, (2 * B, 1, D))
    paddings = jnp.zeros([B, source_len]).at[1, 4:].set(1.0)
    mask = attentions.convert_paddings_to_mask(paddings)
    twice = jnp.repeat(source, 2, axis=0)
    variables = random_params(layer, source, source, source, mask)
    position = jnp.full([2 * B, 1], 3)
    expected, _ = layer.apply(
        variables, query, twice, twice, jnp.repeat(mask, 2, axis=0), position, None
    )
    _, cache = layer.apply(variables, source, source, source, mask, mutable=["decoder_cache"])
    step_mask = mask[:, 0]
    out = layer.apply(
        {**variables, **cache},
        query[:, 0],
        atten_mask=jnp.repeat(step_mask, 2, axis=0) if by_query else step_mask,
        time_step=3,
        segment_pos=None,
        is_cross_attention=True,
        method="extend_step",
    )
    np.testing.assert_allclose(out, expected[:, 0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("implementation", ["auto", "reference", "blockwise", "fused"])
@pytest.mark.parametrize("lazy", [False, True])
def test_implementations_agree(implementation, lazy, monkeypatch):
    """27.1: blockwise attention with cap, extra logit and bias; "auto" where nothing asks more."""
    monkeypatch.setattr(attend, "BLOCKWISE_FROM_LOGITS", T * T)
    fields = {"atten_logit_cap": 2.0, "attention_extra_logit": 0.5, **DECODING["relative_bias"]}
    x, mask = inputs(), attentions.causal_mask(inputs())
    plain = build(implementation="reference", **fields)
    variables = random_params(plain, x, x, x, mask)
    expected, expected_probs = plain.apply(variables, x, x, x, mask)
    given = AttentionMask(target_len=T, source_len=T, causal=True) if lazy else mask
    out, probs = build(implementation=implementation, **fields).apply(variables, x, x, x, given)
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
    if implementation == "reference":
        np.testing.assert_allclose(probs, expected_probs, rtol=2e-5, atol=2e-5)
    else:
        assert probs is None


@pytest.mark.parametrize(
    "fields",
    [{"atten_dropout_prob": 0.1}, {"qk_einsum_tpl": pax_fiddle.Config(OtherEinsum)}],
    ids=["dropout", "einsum"],
)
def test_auto_computes_probabilities_where_a_field_needs_them(fields, monkeypatch):
    monkeypatch.setattr(attend, "BLOCKWISE_FROM_LOGITS", T * T)
    x, mask = inputs(), attentions.causal_mask(inputs())
    layer = build(**fields)
    variables = layer.init(KEY, x, x, x, mask)
    _, probs = layer.apply(variables, x, x, x, mask, rngs={"random": KEY})
    assert probs.shape == (B, N, T, T)
    # In evaluation nothing is dropped, so that only the einsum asks for them.
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        _, probs = layer.apply(variables, x, x, x, mask)
    assert (probs is None) == ("atten_dropout_prob" in fields)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "bool"])
def test_masks_of_all_dtypes_hide(dtype):
    """6.1, improved: a float16 mask hides too, in a call and in a step, and so do booleans."""
    layer = build()
    x = inputs()
    keep = np.tril(np.ones([T, T], bool))[None, None]
    mask = jnp.asarray(keep)
    if dtype != "bool":
        mask = attentions.causal_mask(x.astype(dtype))
    variables = random_params(layer, x, x, x, mask)
    want, _ = reference(variables["params"], x, keep)
    (out, _), cache = layer.apply(variables, x, x, x, mask, mutable=["decoder_cache"])
    np.testing.assert_allclose(out, want, rtol=2e-5, atol=2e-5)
    for lazy in (False, True):
        step_mask = mask[:, :, 2]
        if lazy:
            step_mask = AttentionMask(target_len=1, source_len=T, causal=True, query_offset=2)
        step = layer.apply(
            {**variables, **cache},
            x[:, 2],
            atten_mask=step_mask,
            time_step=2,
            segment_pos=None,
            method="extend_step",
        )
        np.testing.assert_allclose(step, want[:, 2], rtol=2e-5, atol=2e-5)


def test_no_cache_without_decode_cache():
    """28, attentions: decode_cache=False creates no state."""
    layer = build(decode_cache=False)
    x, mask = inputs(), attentions.causal_mask(inputs())
    variables = layer.init(KEY, x, x, x, mask)
    _, updated = layer.apply(variables, x, x, x, mask, mutable=["decoder_cache"])
    assert not updated.get("decoder_cache")


def test_bfloat16_in_gives_bfloat16_out_and_softmax_is_float32():
    layer = build(fprop_dtype=jnp.bfloat16)
    x = inputs().astype(jnp.bfloat16)
    mask = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, mask)
    out, probs = layer.apply(variables, x, x, x, mask)
    assert out.dtype == probs.dtype == jnp.bfloat16
    expected, _ = reference(variables["params"], x, np.tril(np.ones([T, T], bool))[None, None])
    # Three products of numbers with 8 bits each.
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=0.1, atol=0.1)


def test_summaries_of_logits_wait_for_their_verbosity():
    layer = build()
    x, mask = inputs(), attentions.causal_mask(inputs())
    variables = layer.init(KEY, x, x, x, mask)
    found = []
    for verbosity in (3, 4):
        hparams = base_layer.JaxContext.HParams(summary_verbosity=verbosity)
        with base_layer.JaxContext.new_context(hparams=hparams):
            _, updated = layer.apply(variables, x, x, x, mask, mutable=["summaries"])
        found.append(set(updated.get("summaries", {})))
    assert found == [set(), {"max_logit_precap_scalar", "rms_logits_precap_scalar"}]


@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_cap_logits_is_bounded(cap):
    x = jnp.linspace(-50.0, 50.0, 11)
    expected = cap * np.tanh(np.float64(x) / cap) if cap else np.float64(x)
    np.testing.assert_allclose(cap_logits(x, cap), expected, rtol=2e-5)


def test_softmax_with_an_extra_logit_has_finite_values_and_gradients():
    logits = jnp.array([[1000.0, 999.0], [-1000.0, -1000.0]])
    probs = softmax(logits, 0.0)
    np.testing.assert_allclose(probs[0], jax.nn.softmax(logits[0]), rtol=2e-5)
    np.testing.assert_array_equal(probs[1], 0.0)
    assert np.all(np.isfinite(jax.grad(lambda x: softmax(x, 0.0)[0, 0])(logits)))


@pytest.mark.parametrize("p", [-0.5, 0.0, 1.0])
def test_per_dim_scale(p):
    """28, attentions: PerDimScale with p = [-.5, .5, 1, 0]."""
    values = np.array([p, 0.5, 1.0, 0.0])
    layer = pax_fiddle.build(pax_fiddle.Config(attentions.PerDimScale, name="scale", dim=4))
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    y = layer.apply({"params": {"per_dim_scale": jnp.float32(values)}}, jnp.float32(x))
    expected = x * np.log1p(np.exp(values)) * 1.442695041 / np.sqrt(4)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hidden_dim": 6, "num_heads": 4},
            r"DotProductAttention 'att': hidden_dim = 6 is not a multiple of num_heads = 4.\n"
            r"Set hidden_dim to 8, or set dim_per_head explicitly.",
        ),
        ({"input_dim": 0}, "input_dim is 0"),
        ({"dim_per_head": 0}, "dim_per_head is 0"),
        ({"atten_dropout_prob": 1.0}, "atten_dropout_prob is 1.0, expected a probability"),
        ({"atten_logit_cap": -1.0}, "atten_logit_cap is -1.0"),
        ({"input_dim": {"query": 6}}, r"input_dim is {'query': 6}, expected a width"),
        (
            {"combine_qkv": True, "input_dim": {"query": 6, "key": 6, "value": 5}},
            r"combine_qkv = True contradicts input_dim = ",
        ),
        (
            {"use_rotary_position_emb": True, "rotary_position_emb_tpl": None},
            "use_rotary_position_emb = True needs a rotary_position_emb_tpl",
        ),
        (
            {"consolidate_rope_key_state": True},
            "consolidate_rope_key_state = True contradicts use_rotary_position_emb = False",
        ),
        (
            {
                "consolidate_rope_key_state": True,
                "use_rotary_position_emb": True,
                "dconv_qkv": True,
            },
            "dconv_qkv = True contradicts consolidate_rope_key_state = True",
        ),
        (
            {"implementation": "flash"},
            "'att': implementation is 'flash', expected one of .*'auto', .*'blockwise', 'fused'",
        ),
        (
            {"implementation": "blockwise", "atten_dropout_prob": 0.1},
            "implementation = 'blockwise' contradicts atten_dropout_prob = 0.1, which needs all",
        ),
        (
            {"implementation": "fused", "pv_einsum_tpl": pax_fiddle.Config(OtherEinsum)},
            "implementation = 'fused' contradicts pv_einsum_tpl = OtherEinsum, which needs all",
        ),
    ],
)
def test_options_that_contradict_are_refused_by_name(fields, message):
    x = inputs()
    with pytest.raises(ValueError, match=message):
        build(**fields).init(KEY, x, x, x, attentions.causal_mask(x))


def test_calls_that_cannot_work_are_refused():
    x, mask = inputs(), attentions.causal_mask(inputs())
    layer = build()
    with pytest.raises(ValueError, match=r"atten_mask has shape \(1, 1, 4, 4\).*\(2, 1, 5, 5\)"):
        layer.init(KEY, x, x, x, jnp.zeros([1, 1, 4, 4]))
    with pytest.raises(TypeError, match=r"'att': atten_mask has dtype int32.*True keeps"):
        layer.init(KEY, x, x, x, jnp.zeros([1, 1, T, T], jnp.int32))
    with pytest.raises(ValueError, match="combine_qkv = True is for self-attention"):
        build(combine_qkv=True).init(KEY, x, x + 1, x, mask)
    variables = layer.init(KEY, x, x, x, mask)
    for method, args in (
        ("init_states", (2, 3)),
        ("lazy_broadcast_prefix", (2, 3)),
        ("right_align_decode_state_with_prefix", (2, lambda state, *_: state)),
    ):
        with pytest.raises(NotImplementedError, match=rf"'att': {method}\("):
            layer.apply(variables, *args, method=method)


def test_steps_that_cannot_work_are_refused():
    x, mask = inputs(), attentions.causal_mask(inputs())
    layer = build()
    variables = layer.init(KEY, x, x, x, mask)
    _, cache = layer.apply(variables, x, x, x, mask, mutable=["decoder_cache"])

    def step(query, **kwargs):
        fields = {"atten_mask": mask[:, :, 0], "time_step": 0, "segment_pos": None, **kwargs}
        return layer.apply({**variables, **cache}, query, method="extend_step", **fields)

    with pytest.raises(ValueError, match=r"query_vec has shape \(2, 5, 6\), expected \[B, D\]"):
        step(x)
    with pytest.raises(ValueError, match=r"a batch of 2, but extend_step got a batch of 4"):
        step(jnp.ones([4, D]))
    with pytest.raises(ValueError, match=r"batch of 2.*batch of 3, which is not a multiple"):
        step(jnp.ones([3, D]), is_cross_attention=True)
    with pytest.raises(TypeError, match=r"'att': atten_mask has dtype int32.*True keeps"):
        step(x[:, 0], atten_mask=jnp.zeros([1, 1, T], jnp.int32))
    with pytest.raises(ValueError, match=r"atten_mask has shape \(1, 1, 4\), expected \[B, 1, S\]"):
        step(x[:, 0], atten_mask=mask[:, :, 0, 1:])
    with pytest.raises(ValueError, match=r"time_step is 5, but the cache has room for 5 steps"):
        step(x[:, 0], time_step=5)


def test_writes_into_a_cache():
    state = jnp.zeros([2, 5, 3])
    one = write_steps(state, jnp.ones([2, 3], jnp.bfloat16), 1, 1)
    assert one.dtype == state.dtype
    np.testing.assert_array_equal(one[0, :, 0], [0, 1, 0, 0, 0])
    block = write_steps(state, jnp.ones([2, 2, 3]), jnp.int32(3), 1)
    np.testing.assert_array_equal(block[0, :, 0], [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"value has shape \(2, 4\), but the cache has shape"):
        write_steps(state, jnp.ones([2, 4]), 0, 1)

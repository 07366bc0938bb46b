"""Local self-attention, in blocks and by mask, in calls and in steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import largest_array, temporary_bytes

from praxis import base_layer, decoder_utils, pax_fiddle
from praxis.layers import attentions, normalizations
from praxis.layers.attention import blocks
from praxis.layers.attention.local_bias import alibi_slopes
from praxis.layers.attention.mask_spec import AttentionMask
from praxis.layers.attention.masks import mask_from_keep

B, T, D, N, H, R = 2, 11, 6, 3, 2, 4
KEY = jax.random.key(0)
CACHE = base_layer.DECODE_CACHE
CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}
LOCAL = attentions.LocalSelfAttention
XL = attentions.LocalSelfAttentionXL
BIASED = attentions.LocalSelfAttentionRelativeBias
ALIBI = attentions.LocalSelfAttentionAlibi
BUCKETS = (LOCAL, "buckets")  # with the child `relative_bias`
VARIANTS: dict[str, Any] = {
    "plain": LOCAL,
    "xl": XL,
    "bias": BIASED,
    "alibi": ALIBI,
    "buckets": BUCKETS,
}


def relative_bias(**fields):
    return pax_fiddle.Config(
        attentions.RelativeBias,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=9,
        bidirectional=True,
        **fields,
    )


def build(variant: Any = LOCAL, left: int | None = 3, right: int | None = 0, **fields):
    if variant is BUCKETS:
        variant, fields = LOCAL, {"relative_bias_tpl": relative_bias(), **fields}
    if variant is XL:
        fields = {"rel_pos_emb_dim": R, **fields}
    config = pax_fiddle.Config(variant, name="local", input_dim=D, hidden_dim=N * H, num_heads=N)
    return base_layer.instantiate(config.set(left_context=left, right_context=right, **fields))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def random_params(layer, *args):
    shapes = jax.eval_shape(layer.init, KEY, *args)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    arrays = [normal(*leaf.shape, seed=seed) for seed, leaf in enumerate(leaves)]
    return {"params": jax.tree.unflatten(tree, [jnp.float32(x) for x in arrays])}


def inputs(length=T, batch=B):
    return jnp.float32(normal(batch, length, D, seed=20))


def random_keep(*shape):
    """A mask that lets each query see at least itself."""
    keep = normal(*shape, seed=21) > -0.5
    return keep | np.eye(shape[-2], shape[-1], dtype=bool)


def call(layer, variables, x, mask, **kwargs):
    return jax.jit(lambda v, x, mask: layer.apply(v, x, x, x, mask, **kwargs))(variables, x, mask)


# ---- references in NumPy, float64 ---------------------------------------------------------------


def distance_bias(variant, params, q, ahead, size, left):
    """What a variant adds to the logit of a key `ahead` places after the query, [B, N]."""
    if variant is BIASED:
        table = params["pos_emb_compressed"]
        return table[:, (ahead + size + left - 3) % table.shape[1]]
    if variant is ALIBI:
        return alibi_slopes(N) * (ahead + size + left - 2)
    if variant is BUCKETS:
        # 4 buckets a side, 2 of them exact; ln(9 / 2) from distance 2 to 9.
        distance = abs(ahead)
        far = 2 + int(np.log(max(distance, 1) / 2) / np.log(9 / 2) * 2)
        bucket = (4 if ahead > 0 else 0) + (distance if distance < 2 else min(far, 3))
        return params["relative_bias"]["wrb"][:, bucket]
    if variant is XL:
        angles = -ahead * np.array([1.0, 1e-4])
        signal = np.concatenate([np.sin(angles), np.cos(angles)])
        relative = np.einsum("r,rnh->nh", signal, params["pos_proj"]["w"])
        return np.sum((q + params["v"]) * relative, -1)
    return 0.0


def reference(variant, params, x, keep, *, size, left, right):
    """Pair by pair; the keys outside of the window are not there."""
    p = jax.tree.map(np.float64, params)
    q, k, v = (
        np.einsum("btd,dnh->btnh", np.float64(x), p[name]["w"]) + p[name]["b"]
        for name in ("query", "key", "value")
    )
    q = q * np.log1p(np.exp(p["per_dim_scale"]["per_dim_scale"])) / (np.log(2) * H**0.5)
    logits = np.full([x.shape[0], N, x.shape[1], x.shape[1]], -np.inf)
    for i in range(x.shape[1]):
        for j in range(max(i - left + 1, 0), min(i + right + 1, x.shape[1])):
            content = np.sum((q[:, i] + p.get("u", 0.0)) * k[:, j], -1)
            bias = distance_bias(variant, p, q[:, i], j - i, size, left)
            logits[:, :, i, j] = np.where(keep[:, :, i, j], content + bias, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    probs = weights / weights.sum(-1, keepdims=True)
    context = np.einsum("bnts,bsnh->btnh", probs, v)
    return np.einsum("btnh,dnh->btd", context, p["post"]["w"]) + p["post"]["b"], probs


# ---- calls --------------------------------------------------------------------------------------

# W, l, r: the smallest block; one that does not divide T; one longer than T; no context at all.
SIZES = [(None, 3, 1), (4, 5, 4), (13, 4, 2), (1, 1, 0)]


@pytest.mark.parametrize("simulated", [False, True], ids=["blocks", "simulated"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", SIZES[:2], ids=str)
def test_matches_numpy(variant, sizes, simulated):
    check_call(VARIANTS[variant], sizes, simulated)


@pytest.mark.parametrize("sizes", SIZES[2:], ids=str)
def test_blocks_may_be_longer_than_the_row_or_a_single_place(sizes):
    check_call(XL, sizes, False)


def check_call(variant, sizes, simulated):
    size, left, right = sizes
    layer = build(variant, left, right, block_size=size, simulated=simulated)
    x, keep = inputs(), random_keep(B, 1, T, T)
    variables = random_params(layer, x, x, x, jnp.asarray(keep))
    output, probs = call(layer, variables, x, mask_from_keep(jnp.asarray(keep)))
    size = size or max(1, right, left - 1)
    want_output, want_probs = reference(
        variant, variables["params"], x, keep, size=size, left=left, right=right
    )
    np.testing.assert_allclose(output, want_output, **CLOSE)
    if simulated:
        np.testing.assert_allclose(probs, want_probs, **CLOSE)
        return
    # [B, N, U, W, C]: key c of block u is at u W + c - (l - 1).
    assert probs.shape == (B, N, -(-T // size), size, size + left - 1 + right)
    for i in range(T):
        row = np.zeros([B, N, T + 2 * probs.shape[-1]])
        first = i // size * size - left + 1 + probs.shape[-1]
        row[:, :, first : first + probs.shape[-1]] = probs[:, :, i // size, i % size]
        row = row[:, :, probs.shape[-1] : -probs.shape[-1]]
        np.testing.assert_allclose(row, want_probs[:, :, i], **CLOSE)


SEGMENTS = jnp.asarray([[1] * 4 + [2] * 7, [1] * 6 + [2] * 3 + [0] * 2])
PADDED = jnp.asarray(np.arange(T)[np.newaxis] >= np.array([[T], [7]]))
RULES: dict[str, Any] = {
    "none": {},
    "causal": {"causal": True},
    "window": {"window": (2, 1)},
    "segments": {"causal": True, "query_segment_ids": SEGMENTS, "key_segment_ids": SEGMENTS},
    "paddings": {"query_paddings": PADDED, "key_paddings": PADDED.astype(jnp.float32)},
    "prefix": {"causal": True, "visible_keys": ~PADDED},
    "dense": {"dense": jnp.asarray(random_keep(1, 1, T, T))},
    "dense_by_head": {"dense": jnp.asarray(random_keep(B, N, 1, T)), "causal": True},
}


@pytest.mark.parametrize("sizes", [(4, 3, 2), (3, 4, 3), (13, 2, 0)], ids=str)
@pytest.mark.parametrize("rules", RULES)
def test_blocks_of_a_mask_are_those_of_its_array(rules, sizes):
    mask = AttentionMask(target_len=T, source_len=T, **RULES[rules])
    whole = np.broadcast_to(mask.materialise() == 0, (B, N, T, T))
    size, left, right = sizes
    got = np.asarray(blocks.blocks_of_mask(mask, *sizes))
    width = size + left - 1 + right
    got = np.broadcast_to(got, (B, N, -(-T // size), size, width))
    want = np.zeros_like(got)
    for i in range(T):
        for j in range(max(i - left + 1, 0), min(i + right + 1, T)):
            u, w = divmod(i, size)
            want[:, :, u, w, j - u * size + left - 1] = whole[:, :, i, j]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "mask",
    [
        jnp.asarray(random_keep(1, 1, T, T)),
        mask_from_keep(~PADDED)[:, jnp.newaxis, jnp.newaxis],
        jnp.zeros([1, 1, 1, T]),
        AttentionMask(target_len=T, source_len=T, **RULES["segments"]),
    ],
    ids=["batch_1", "by_key", "by_key_batch_1", "rules"],
)
def test_masks_of_any_form(mask):
    """A mask that examples or queries share is as one that is repeated for them."""
    layer = build(left=3, right=1)
    x = inputs()
    variables = random_params(layer, x, x, x, mask)
    array = mask.materialise() if isinstance(mask, AttentionMask) else mask
    repeated = jnp.broadcast_to(array, [B, 1, T, T])
    np.testing.assert_allclose(
        call(layer, variables, x, mask)[0], call(layer, variables, x, repeated)[0], **CLOSE
    )


OPTIONS: dict[str, Any] = {
    "scale_logits": {"scale_logits_by_head_dims": True},
    "cap_extra": {"atten_logit_cap": 0.7, "attention_extra_logit": 0.5},
    "zero": {"zero_fully_masked": True},
    "rotary_norm": {
        "use_rotary_position_emb": True,
        "ln_tpl": pax_fiddle.Config(normalizations.RmsNorm),
    },
    "blockwise": {"implementation": "blockwise", "zero_fully_masked": True},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_act_in_blocks_as_on_the_whole(options):
    keep = random_keep(B, 1, T, T)
    if "zero_fully_masked" in OPTIONS[options]:
        keep[1, 0, 4] = False
    outputs, x, mask = [], inputs(), jnp.asarray(keep)
    for simulated in (False, True):
        layer = build(XL, 3, 1, simulated=simulated, **OPTIONS[options])
        variables = random_params(layer, x, x, x, mask)
        outputs.append(call(layer, variables, x, mask)[0])
    if options != "rotary_norm":  # which has variables of its own
        plain = call(build(XL, 3, 1), variables, x, mask)[0]
        assert np.max(np.abs(outputs[0] - plain)) > 1e-3  # the option does something
    np.testing.assert_allclose(outputs[0], outputs[1], **CLOSE)


def test_contexts_without_limit_are_for_simulated_attention():
    x, keep = inputs(), jnp.asarray(random_keep(B, 1, T, T))
    layer = build(left=None, right=0, simulated=True)
    variables = random_params(layer, x, x, x, keep)
    want = reference(LOCAL, variables["params"], x, keep, size=1, left=T, right=0)[0]
    np.testing.assert_allclose(call(layer, variables, x, keep)[0], want, **CLOSE)


def test_a_bias_by_position_reads_positions():
    """Positions that count by two double the distances of `relative_bias`."""
    bias = relative_bias(use_length_as_position=False)
    x, keep = inputs(), jnp.asarray(random_keep(B, 1, T, T))
    position = jnp.broadcast_to(jnp.arange(T) * 2, [B, T])
    outputs = []
    for simulated in (False, True):
        layer = build(left=4, right=2, relative_bias_tpl=bias, simulated=simulated)
        variables = random_params(layer, x, x, x, keep)
        outputs.append(
            call(layer, variables, x, keep, query_segment_pos=position, key_segment_pos=position)[0]
        )
    np.testing.assert_allclose(outputs[0], outputs[1], **CLOSE)
    assert np.max(np.abs(outputs[0] - call(layer, variables, x, keep)[0])) > 1e-3


def test_dropout_drops_in_training_alone():
    layer = build(atten_dropout_prob=0.5)
    x, keep = inputs(), jnp.ones([1, 1, 1, T], jnp.bool)
    variables = random_params(layer, x, x, x, keep)
    _, probs = call(layer, variables, x, keep, rngs={"random": KEY})
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        _, kept = call(layer, variables, x, keep)
    dropped = np.mean(np.asarray(probs)[np.asarray(kept) > 0] == 0.0)
    assert 0.3 < dropped < 0.7


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.optimized
def test_time_and_memory_are_linear_in_the_length(variant):
    """Gradients included, with a mask by rules: nothing in the program is T by T."""

    def compiled(length):
        layer = build(VARIANTS[variant], 9, 0)  # C = 16
        ids = jnp.ones([1, length], jnp.int32)
        mask = AttentionMask(
            target_len=length,
            source_len=length,
            causal=True,
            query_segment_ids=ids,
            key_segment_ids=ids,
        )
        x = inputs(length, 1)
        variables = random_params(layer, x, x, x, mask)

        def loss(variables, x, mask):
            return jnp.sum(jnp.square(layer.apply(variables, x, x, x, mask)[0]))

        return jax.jit(jax.grad(loss)).lower(variables, x, mask).compile()

    short, long = compiled(1024), compiled(4096)
    assert largest_array(long) < 4096 * 200  # N C = 48 logits a position; not 4096 N
    # 4 times as long, 16 times as many pairs. What does not grow makes neither number exact.
    assert temporary_bytes(long) < 5 * temporary_bytes(short)
    analyses: list[Any] = [program.cost_analysis() for program in (short, long)]
    flops = [analysis["flops"] for analysis in analyses]
    assert flops[1] < 5 * flops[0]


# ---- steps --------------------------------------------------------------------------------------


def grown_cache(layer, variables, x, masks, prompt_len):
    head, mask = x[:, :prompt_len], masks[:, :, :prompt_len, :prompt_len]
    _, cache = call(layer, variables, head, mask, mutable=[CACHE])
    return transform(layer, variables, cache, decoder_utils.pad_state_fn(T - prompt_len))


def transform(layer, variables, cache, fn):
    def transformed(variables):
        return layer.apply(variables, fn, method="transform_decode_state", mutable=[CACHE])[1]

    return jax.jit(transformed)({**variables, **cache})


def stepper(layer):
    def step_fn(variables, x, mask, step):
        return layer.apply(
            variables,
            x,
            atten_mask=mask,
            time_step=step,
            segment_pos=None,
            method="extend_step",
            mutable=[CACHE],
        )

    return jax.jit(step_fn)


@pytest.mark.parametrize("window_only", [False, True], ids=["whole", "ring"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_the_call(variant, window_only):
    layer = build(VARIANTS[variant], decode_cache_window_only=window_only)
    x = inputs()
    masks = jnp.where(jnp.asarray(random_keep(B, 1, T, T)), attentions.causal_mask(x), -1e38)
    variables = random_params(layer, x, x, x, masks)
    want = call(layer, variables, x, masks)[0]
    step_fn, prompt_len = stepper(layer), 4
    cache = grown_cache(layer, variables, x, masks, prompt_len)
    for step in range(prompt_len, T):
        got, cache = step_fn({**variables, **cache}, x[:, step], masks[:, :, step], step)
        np.testing.assert_allclose(got, want[:, step], **CLOSE)
    assert cache[CACHE]["key_state"].shape == (B, 3 if window_only else T, N, H)
    length = layer.apply({**variables, **cache}, method="decoding_state_sequence_length")
    assert length == T


def test_simulated_steps_without_a_left_limit_equal_the_call():
    layer = build(left=None, simulated=True)
    x = inputs()
    masks = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, masks)
    want, cache = call(layer, variables, x, masks)[0], None
    cache = grown_cache(layer, variables, x, masks, T - 1)
    got, _ = stepper(layer)({**variables, **cache}, x[:, -1], masks[:, :, -1], T - 1)
    np.testing.assert_allclose(got, want[:, -1], **CLOSE)


def test_beams_reorder_a_cache_of_the_window():
    outs, x = [], inputs()
    masks = attentions.causal_mask(x)
    for window_only in (False, True):
        layer = build(XL, decode_cache_window_only=window_only)
        variables = random_params(layer, x, x, x, masks)
        cache = grown_cache(layer, variables, x, masks, 5)
        step_fn = stepper(layer)
        _, cache = step_fn({**variables, **cache}, x[:, 5], masks[:, :, 5], 5)
        cache = transform(layer, variables, cache, lambda state, batch_dim, _: state[::-1])
        outs.append(step_fn({**variables, **cache}, x[:, 6], masks[:, :, 6], 6)[0])
    np.testing.assert_allclose(outs[1], outs[0], **CLOSE)


def test_a_cross_attention_step_sees_both_sides_of_its_window():
    """Queries of 2 B rows share the B rows of the cache; the mask holds booleans."""
    layer = build(left=2, right=2)
    x, queries = inputs(), jnp.float32(normal(2 * B, D, seed=22))
    everything = jnp.zeros([1, 1, 1, T])
    variables = random_params(layer, x, x, x, everything)
    _, cache = call(layer, variables, x, everything, mutable=[CACHE])
    step = 4
    # A query that takes the place of its key would change it, so it is hidden from itself.
    keep = jnp.asarray(random_keep(1, 1, T, T))[:, :, step].at[:, :, step].set(False)
    assert keep[0, 0, step - 1 : step + 3].tolist() == [True, False, True, True]
    got = layer.apply(
        {**variables, **cache},
        queries,
        atten_mask=keep,
        time_step=step,
        segment_pos=None,
        is_cross_attention=True,
        method="extend_step",
    )
    rows = jnp.repeat(x, 2, axis=0).at[:, step].set(queries)
    want = call(layer, variables, rows, keep[:, :, jnp.newaxis])[0][:, step]
    np.testing.assert_allclose(got, want, **CLOSE)


# ---- slopes and errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_heads", "exponents"),
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_of_alibi(num_heads, exponents):
    np.testing.assert_allclose(alibi_slopes(num_heads), 2.0 ** -np.array(exponents), rtol=1e-12)


@pytest.mark.parametrize(
    ("variant", "fields", "message"),
    [
        (LOCAL, {"left": None}, "left_context is None, expected at least 1. Attention in blocks"),
        (LOCAL, {"right": None}, "right_context is None, expected at least 0"),
        (ALIBI, {"left": None, "simulated": True}, "left_context is None"),
        (BIASED, {"right": None, "simulated": True}, "right_context is None"),
        (LOCAL, {"left": 0}, "left_context is 0, expected at least 1"),
        (LOCAL, {"right": -1, "simulated": True}, "right_context is -1, expected at least 0"),
        (LOCAL, {"block_size": 0}, "block_size is 0, expected at least 1"),
        (LOCAL, {"block_size": 2, "left": 4}, "block_size = 2 is too small for left_context = 4"),
        (LOCAL, {"block_size": 2, "right": 3}, "Set it to 3 or more"),
        (
            LOCAL,
            {"left": None, "simulated": True, "decode_cache_window_only": True},
            "decode_cache_window_only = True needs a window to keep, but left_context is None",
        ),
        (
            LOCAL,
            {"dconv_qkv": True, "decode_cache_window_only": True},
            "decode_cache_window_only = True contradicts dconv_qkv",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_named(variant, fields, message):
    x = inputs()
    with pytest.raises(ValueError, match=f"{variant.__name__} 'local': .*{message}"):
        build(variant, **fields).init(KEY, x, x, x, attentions.causal_mask(x))


def test_blocks_are_for_self_attention():
    x = inputs()
    message = "LocalSelfAttention 'local': there are 5 queries and 11 keys"
    with pytest.raises(ValueError, match=message):
        build().init(KEY, x[:, :5], x, x, jnp.zeros([1, 1, 1, T]))


def test_a_cut_cache_is_not_for_cross_attention():
    layer = build(decode_cache_window_only=True)
    x = inputs()
    masks = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, masks)
    cache = grown_cache(layer, variables, x, masks, 4)
    with pytest.raises(ValueError, match=r"LocalSelfAttention 'local'.* keeps a window alone"):
        layer.apply(
            {**variables, **cache},
            x[:, 4],
            atten_mask=masks[:, :, 4],
            time_step=4,
            segment_pos=None,
            is_cross_attention=True,
            method="extend_step",
        )

"""Attention in blocks, and by kernels, against attention with all logits at once."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import largest_array, temporary_bytes

from praxis.layers.attention import blockwise
from praxis.layers.attention.attend import attend
from praxis.layers.attention.blockwise import blockwise_attention
from praxis.layers.attention.fused import fused_attention
from praxis.layers.attention.mask_spec import AttentionMask

B, T, S, N, H = 2, 19, 23, 6, 4
RNG = np.random.default_rng(0)


def normal(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.standard_normal(shape), dtype)


def heads(target_len=T, source_len=S, num_kv_heads=N, dtype=jnp.float32):
    """Query, key and value; and a gradient of the context."""
    kv = (B, source_len, num_kv_heads, H)
    query, grad = (normal(B, target_len, N, H, dtype=dtype) for _ in range(2))
    return (query, normal(*kv, dtype=dtype), normal(*kv, dtype=dtype)), grad


def rules(target_len=T, source_len=S, **fields):
    return AttentionMask(target_len=target_len, source_len=source_len, **fields)


def ids(length, seed):
    return jnp.asarray(np.sort(np.random.default_rng(seed).integers(0, 3, [B, length])))


MASKS = {
    "none": None,
    "causal": rules(causal=True),
    "later_queries": rules(causal=True, query_offset=S - T),
    "window": rules(window=(4, 2)),
    "causal_window": rules(causal=True, window=(5, 3)),
    "window_past_the_end": rules(window=(-2, 6)),  # sees only later keys; the last queries none
    "segments": rules(causal=True, query_segment_ids=ids(T, 0), key_segment_ids=ids(S, 1)),
    "prefix": rules(causal=True, visible_keys=jnp.arange(S)[jnp.newaxis] < jnp.array([[3], [17]])),
    "paddings": rules(
        causal=True,
        query_paddings=jnp.arange(T)[jnp.newaxis] >= jnp.array([[T], [11]]),
        key_paddings=(jnp.arange(S)[jnp.newaxis] < jnp.array([[2], [0]])).astype(jnp.float32),
    ),
    "additive": jnp.where(normal(B, 1, T, S) > 1.5, 0.0, -0.7 * jnp.finfo(jnp.float32).max),
    "boolean_by_head": normal(1, N, T, S) > 0.5,
    "by_key": normal(B, 1, 1, S) > 0.5,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale_cap_extra": {"logits_scale": 0.7, "cap": 2.0, "extra_logit": 0.5},
    "zero": {"zero_fully_masked": True},
}


MADE_WITH = {}  # mask and options of the functions of `with_options`


def results(attention, arrays, grad, **bias):
    """The context, and the gradients of queries, keys, values and, where given, of the bias."""
    run = lambda arrays, bias: attention(*arrays, **bias)  # noqa: E731
    context, pull = jax.vjp(run, arrays, bias)
    return context, pull(grad.astype(context.dtype))


def assert_same(attention, arrays, grad, tolerance=2e-5, **bias):
    """`attention` equals `attend`; both get the keyword arguments that it was made with."""
    got = jax.jit(lambda *a: results(attention, *a, **bias))(arrays, grad)
    expected = jax.jit(lambda *a: results(reference_of(attention), *a, **bias))(arrays, grad)
    close = lambda a, b: np.testing.assert_allclose(  # noqa: E731
        np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance
    )
    jax.tree.map(close, got, expected)


def with_options(function, mask, **options):
    def attention(query, key, value, **bias):
        return function(query, key, value, mask, **options, **bias)

    MADE_WITH[attention] = (mask, options)
    return attention


def reference_of(attention):
    mask, options = MADE_WITH[attention]
    kept = {k: v for k, v in options.items() if k not in ("query_block", "key_block", "kernel")}
    return lambda q, k, v, **bias: attend(q, k, v, mask, **kept, **bias).context


# Each mask with plain options, and the options with masks under which some queries see nothing.
CASES = [(mask, "plain") for mask in MASKS]
CASES += [
    (mask, name) for mask in ("window_past_the_end", "paddings") for name in list(OPTIONS)[1:]
]


@pytest.mark.parametrize(("mask", "options"), CASES)
def test_blocks_equal_the_whole(mask, options):
    """Blocks that divide neither T nor S; two queries share a head of keys."""
    sizes: dict[str, Any] = {"query_block": 8, "key_block": 5}
    attention = with_options(blockwise_attention, MASKS[mask], **sizes, **OPTIONS[options])
    assert_same(attention, *heads(num_kv_heads=3))


@pytest.mark.parametrize(
    ("shape", "num_kv_heads"), [((B, N, T, S), 1), ((1, N, T, S), 3), ((1, 1, 1, S), 6)]
)
def test_a_bias_gets_its_gradient(shape, num_kv_heads):
    options: dict[str, Any] = {"cap": 3.0, "logits_scale": 0.5, "query_block": 7, "key_block": 9}
    attention = with_options(blockwise_attention, MASKS["causal_window"], **options)
    assert_same(attention, *heads(num_kv_heads=num_kv_heads), bias=normal(*shape))


@pytest.mark.parametrize("lengths", [(1, 40), (40, 1), (16, 16)])
def test_lengths(lengths):
    target_len, source_len = lengths
    mask = rules(target_len, source_len, causal=True, query_offset=max(0, source_len - target_len))
    attention = with_options(blockwise_attention, mask, query_block=16, key_block=8)
    assert_same(attention, *heads(target_len, source_len))


def test_bfloat16_stays_close_and_keeps_its_dtype():
    """Sums are float32; the reference rounds logits to bfloat16, hence the tolerance."""
    arrays, grad = heads(dtype=jnp.bfloat16)
    mask = MASKS["causal"]
    attention = with_options(blockwise_attention, mask, key_block=8)
    got = jax.jit(lambda *args: results(attention, *args))(arrays, grad)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(got))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, grad))
    expected = results(reference_of(with_options(attend, mask)), *wide)
    close = lambda a, b: np.testing.assert_allclose(np.float32(a), b, rtol=3e-2, atol=3e-2)  # noqa: E731
    jax.tree.map(close, got, expected)


def test_values_may_be_wider_than_keys():
    """The context is linear in the values, so that columns do not depend on each other."""
    (query, key, value), _ = heads()
    wide = jnp.concatenate([value, 2 * value[..., :1]], axis=-1)
    got = blockwise_attention(query, key, wide, MASKS["causal"], query_block=8, key_block=8)
    expected = attend(query, key, value, MASKS["causal"]).context
    np.testing.assert_allclose(got[..., :-1], expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(got[..., -1], 2 * expected[..., 0], rtol=2e-5, atol=2e-5)


def test_large_logits_do_not_overflow():
    """Rounding of logits of some 1000 is 1e-4, hence the tolerance."""
    (query, key, value), _ = heads()
    attention = with_options(blockwise_attention, MASKS["causal"], key_block=4)
    got, expected = (f(1e3 * query, key, value) for f in (attention, reference_of(attention)))
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def test_no_gradient_flows_to_an_additive_mask():
    arrays, grad = heads()
    query, key, value = arrays

    def run(mask):
        return jnp.sum(blockwise_attention(query, key, value, mask, key_block=8) * grad)

    np.testing.assert_array_equal(jax.grad(run)(MASKS["additive"]), 0)


def test_what_cannot_work_is_refused():
    (query, key, value), _ = heads()
    with pytest.raises(ValueError, match=r"key \(2, 23, 4, 4\) .* where K divides N"):
        blockwise_attention(query, key[:, :, :4], value[:, :, :4])
    with pytest.raises(ValueError, match="key_block is 0, expected at least 1"):
        blockwise_attention(query, key, value, key_block=0)


# ---- memory -------------------------------------------------------------------------------------


def compiled_gradient(length, mask):
    shape = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)

    def loss(query, key, value):
        return jnp.sum(jnp.sin(blockwise_attention(query, key, value, mask)))

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()


@pytest.mark.optimized
def test_memory_is_linear_in_the_length():
    sizes = [
        temporary_bytes(compiled_gradient(length, rules(length, length, causal=True)))
        for length in (1024, 2048, 4096)
    ]
    assert all(longer / shorter < 2.6 for shorter, longer in itertools.pairwise(sizes))


@pytest.mark.optimized
def test_no_array_has_the_size_of_all_logits():
    length = 8192
    compiled = compiled_gradient(length, rules(length, length, causal=True, window=(1024, 0)))
    assert largest_array(compiled) < length**2 / 16


def test_a_window_is_read_alone():
    """The blocks that are computed are counted by what the forward loop runs over."""
    mask = rules(4096, 4096, causal=True, window=(256, 0))
    options = blockwise._Options(0.0, None, 1.0, True, 512, 256)
    counts = [
        int(stop - first)
        for i in range(8)
        for first, stop in [blockwise._key_blocks(options, mask, blockwise._block(i, 512, 4096))]
    ]
    assert counts == [2, 3, 3, 3, 3, 3, 3, 3]


# ---- kernels ------------------------------------------------------------------------------------

SQUARE: dict[str, Any] = {"target_len": T, "source_len": T}
KERNEL_MASKS = {
    "none": None,
    "causal": AttentionMask(**SQUARE, causal=True),
    "causal_window": AttentionMask(**SQUARE, causal=True, window=(5, 2)),
    "left_window": AttentionMask(**SQUARE, window=(5, 0)),
    "two_sided_window": AttentionMask(**SQUARE, window=(3, 2)),
    "blind": AttentionMask(**SQUARE, causal=True, query_paddings=jnp.arange(T)[jnp.newaxis] > 9),
    "segments": AttentionMask(**SQUARE, query_segment_ids=ids(T, 0), key_segment_ids=ids(T, 0)),
    "additive": MASKS["additive"][..., :T],
}


@pytest.mark.parametrize(
    ("mask", "zero"), [*((mask, False) for mask in KERNEL_MASKS), ("blind", True)]
)
def test_a_kernel_gets_the_mask_in_its_own_words(mask, zero):
    """With the kernel of XLA, which runs anywhere and takes the same arguments as cuDNN's."""
    options: dict[str, Any] = {"kernel": "xla", "zero_fully_masked": zero, "logits_scale": 0.7}
    attention = with_options(fused_attention, KERNEL_MASKS[mask], **options)
    assert_same(attention, *heads(T, T, 3), bias=normal(1, N, T, T))


@pytest.mark.parametrize("options", OPTIONS)
def test_without_a_kernel_that_can_attention_goes_in_blocks(options):
    """No kernel on the CPU; and none has a cap or an extra logit."""
    attention = with_options(fused_attention, MASKS["causal"], **OPTIONS[options])
    assert_same(attention, *heads())

"""Masks as rules against masks as arrays."""

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers.attention import mask_spec, masks
from praxis.layers.attention.mask_spec import AttentionMask

B, T = 2, 7
SQUARE: dict[str, Any] = {"target_len": T, "source_len": T}
IDS = jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 3, 3, 3]])
PADDINGS = jnp.array([[0, 0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0]], jnp.float32)
PREFIX = jnp.array([[0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0, 1]])  # 0 marks it


def paddings_and_causal(dtype):
    by_key = masks.convert_paddings_to_mask(PADDINGS, dtype)
    return masks.merge_masks(by_key, masks.causal_mask(jnp.ones([B, T, 3], dtype)))


SAME = {
    "causal": (
        AttentionMask(**SQUARE, causal=True),
        lambda dtype: masks.causal_mask(jnp.ones([B, T, 3], dtype)),
    ),
    "segments": (
        AttentionMask(**SQUARE, query_segment_ids=IDS, key_segment_ids=IDS),
        lambda dtype: masks.segment_mask(IDS, dtype=dtype),
    ),
    "other_segments": (
        AttentionMask(
            target_len=3, source_len=T, query_segment_ids=IDS[:, 2:5], key_segment_ids=IDS
        ),
        lambda dtype: masks.segment_mask(IDS[:, 2:5], IDS, dtype),
    ),
    "prefix": (
        AttentionMask(
            **SQUARE,
            causal=True,
            query_segment_ids=IDS,
            key_segment_ids=IDS,
            visible_keys=PREFIX == 0,
        ),
        lambda dtype: masks.causal_segment_mask(IDS, dtype, PREFIX),
    ),
    "paddings": (
        AttentionMask(**SQUARE, key_paddings=PADDINGS),
        lambda dtype: masks.convert_paddings_to_mask(PADDINGS, dtype),
    ),
    "window": (
        AttentionMask(target_len=T, source_len=5, window=(3, 1)),
        lambda dtype: masks.limited_context_mask(3, 1, T, dtype, 5)[jnp.newaxis, jnp.newaxis],
    ),
    "paddings_and_causal": (
        AttentionMask(**SQUARE, key_paddings=PADDINGS).merge(AttentionMask(**SQUARE, causal=True)),
        paddings_and_causal,
    ),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", SAME)
def test_rules_give_the_arrays_of_the_builders(name, dtype):
    """6.1: in shape, dtype and value."""
    rules, build = SAME[name]
    array, expected = rules.materialise(dtype), build(dtype)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert rules.shape == expected.shape
    np.testing.assert_array_equal(array, expected)


@st.composite
def rules(draw):
    """A mask over B rows and T positions, with or without each rule."""
    maybe = lambda value: draw(st.sampled_from([None, value]))  # noqa: E731
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    bits = lambda *shape: jnp.asarray(rng.random(shape) < 0.4)  # noqa: E731
    fields = {
        "causal": draw(st.booleans()),
        "window": draw(st.sampled_from([None, (2, 1), (None, 0), (3, None)])),
        "visible_keys": maybe(bits(B, T)),
        "key_paddings": maybe(bits(B, T).astype(jnp.float32)),
        "dense": maybe(bits(1, 1, T, T)),
    }
    if draw(st.booleans()):
        ids = jnp.asarray(rng.integers(0, 3, [B, T]))
        fields |= {"query_segment_ids": ids, "key_segment_ids": ids}
    if draw(st.booleans()):
        fields["query_paddings"] = bits(B, T)
    return AttentionMask(**SQUARE, **fields)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(rules(), rules())
def test_merging_rules_merges_the_arrays(a, b):
    merged = a.merge(b).materialise()
    expected = masks.merge_masks(a.materialise(), b.materialise())
    np.testing.assert_array_equal(
        jnp.broadcast_to(merged, (B, 1, T, T)), jnp.broadcast_to(expected, (B, 1, T, T))
    )


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(rules(), st.integers(0, 4), st.integers(0, 3))
def test_a_block_is_a_part_of_the_whole(mask, query_start, key_start):
    whole = jnp.broadcast_to(mask.materialise() == 0, (B, 1, T, T))
    block = jax.jit(lambda q, k: mask.block(q, 3, k, 4))(query_start, key_start)
    part = whole[:, :, query_start : query_start + 3, key_start : key_start + 4]
    np.testing.assert_array_equal(jnp.broadcast_to(block, part.shape), part)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(rules(), st.integers(0, 4))
def test_no_key_outside_the_range_is_seen(mask, query_start):
    start, stop = mask.key_range(query_start, 3)
    seen = np.broadcast_to(mask.materialise() == 0, (B, 1, T, T))[
        :, :, query_start : query_start + 3
    ]
    assert 0 <= start <= stop <= T
    assert not seen[..., :start].any() and not seen[..., stop:].any()


def test_the_range_of_a_causal_window_is_as_short_as_it_can_be():
    mask = AttentionMask(target_len=100, source_len=100, causal=True, window=(10, 0))
    assert [int(x) for x in mask.key_range(50, 4)] == [41, 54]


def test_an_offset_moves_the_queries():
    later = AttentionMask(target_len=2, source_len=T, causal=True, window=(3, 0), query_offset=4)
    whole = AttentionMask(**SQUARE, causal=True, window=(3, 0)).materialise()
    np.testing.assert_array_equal(later.materialise(), whole[:, :, 4:6])


def test_rules_are_a_tree_that_jit_takes():
    mask = AttentionMask(**SQUARE, causal=True, key_paddings=PADDINGS)
    np.testing.assert_array_equal(jax.jit(lambda m: m.materialise())(mask), mask.materialise())
    assert jax.tree.map(lambda x: x, mask).causal
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(mask)]
    assert ".key_paddings" in paths


def test_masks_that_do_not_go_together_are_refused():
    mask = AttentionMask(**SQUARE, causal=True)
    with pytest.raises(ValueError, match="for T = 7 and S = 7, the other for T = 3 and S = 7"):
        mask.merge(AttentionMask(target_len=3, source_len=T))
    with pytest.raises(ValueError, match="query_offset is 0 in one mask and 4 in the other"):
        mask.merge(dataclasses.replace(mask, query_offset=4))
    wide: dict[str, Any] = {"target_len": 3, "source_len": T}
    with pytest.raises(ValueError, match=r"T = 3 and S = 7\. A mask by key can be merged"):
        AttentionMask(**wide, key_paddings=PADDINGS).merge(AttentionMask(**wide, causal=True))
    with pytest.raises(ValueError, match=r"shape \(2, 1, 7, 5\), expected .* T = 7 queries"):
        mask_spec.as_mask(jnp.zeros([B, 1, T, 5]), T, T)
    with pytest.raises(ValueError, match="for T = 7 queries and S = 7 keys, but there are 3"):
        mask_spec.as_mask(mask, 3, T)

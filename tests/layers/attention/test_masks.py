"""Attention masks and blocks against loops over positions."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers import attentions
from praxis.layers.attention.blocks import local_block_mask
from praxis.layers.attention.masks import keep_from_mask, mask_from_keep

NEGATIVE = -0.7 * float(np.finfo(np.float32).max)


def seen(mask):
    """Where a mask attends, as a NumPy array."""
    return np.asarray(mask) > NEGATIVE / 2


def test_causal_mask_shows_the_past():
    mask = attentions.causal_mask(jnp.ones([2, 5, 3]))
    assert mask.shape == (1, 1, 5, 5)
    np.testing.assert_array_equal(seen(mask)[0, 0], np.tril(np.ones([5, 5], bool)))
    assert float(mask[0, 0, 0, 1]) == pytest.approx(NEGATIVE)


def test_causal_mask_takes_the_dtype_of_its_input_and_refuses_integers():
    assert attentions.causal_mask(jnp.ones([2, 5, 3], jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(TypeError, match=r"input_t has dtype int32, expected a floating one"):
        attentions.causal_mask(jnp.ones([2, 5, 3], jnp.int32))


def test_segment_mask_shows_the_own_segment():
    target, source = jnp.array([[1, 1, 2]]), jnp.array([[2, 1, 1, 0, 2]])
    expected = np.asarray(target)[0, :, None] == np.asarray(source)[0, None, :]
    np.testing.assert_array_equal(seen(attentions.segment_mask(target, source))[0, 0], expected)


def test_causal_segment_mask_shows_a_prefix_to_all():
    """28, attentions: causal_segment_mask with causal_attention_mask."""
    ids = jnp.array([[1, 1, 1, 2, 2]])
    causal = jnp.array([[0, 0, 1, 1, 1]])  # the first two are a prefix
    mask = seen(attentions.causal_segment_mask(ids, causal_attention_mask=causal))[0, 0]
    for query in range(5):
        for key in range(5):
            same = int(ids[0, query]) == int(ids[0, key])
            assert mask[query, key] == (same and (key <= query or key < 2))


def test_merging_paddings_with_a_causal_mask_hides_padded_queries():
    """28, attentions: paddings [2, 3] of 4 merged with causal give empty rows."""
    paddings = jnp.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    by_key = attentions.convert_paddings_to_mask(paddings)
    merged = attentions.merge_masks(by_key, attentions.causal_mask(jnp.ones([2, 4, 3])))
    for row, length in enumerate([2, 3]):
        expected = np.tril(np.ones([4, 4], bool))
        expected[length:] = expected[:, length:] = False
        np.testing.assert_array_equal(seen(merged)[row, 0], expected)


def test_merging_takes_booleans_for_attending():
    keep = jnp.tril(jnp.ones([3, 3], bool))[None, None]
    other = attentions.segment_mask(jnp.array([[1, 1, 2]]))
    merged = attentions.merge_masks(keep, other)
    np.testing.assert_array_equal(seen(merged), np.asarray(keep) & seen(other))


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(st.lists(st.booleans(), min_size=9, max_size=9), st.integers(0, 511))
def test_merging_commutes_and_is_idempotent(keep_a, bits):
    keep_b = [bool(bits >> i & 1) for i in range(9)]
    a, b = (mask_from_keep(jnp.array(keep).reshape(1, 1, 3, 3)) for keep in (keep_a, keep_b))
    merged = attentions.merge_masks(a, b)
    np.testing.assert_array_equal(merged, attentions.merge_masks(b, a))
    np.testing.assert_array_equal(merged, attentions.merge_masks(merged, b))
    np.testing.assert_array_equal(keep_from_mask(merged), keep_from_mask(a) & keep_from_mask(b))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 1, 3, 5), (2, 1, 3, 7)), r"a has shape \(2, 1, 3, 5\).*the same S"),
        (((2, 1, 1, 5), (2, 1, 3, 5)), r"only if there are as many queries as keys"),
        (((2, 1, 5, 5), (3, 1, 5, 5)), r"expected the same shape but for a size of 1"),
    ],
)
def test_merging_refuses_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        attentions.merge_masks(*(jnp.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("left", [None, 1, 3])
@pytest.mark.parametrize("right", [None, 0, 2])
def test_limited_context_mask(left, right):
    mask = seen(attentions.limited_context_mask(left, right, 5, column_time_size=7))
    for query in range(5):
        for key in range(7):
            near = (left is None or key > query - left) and (right is None or key <= query + right)
            assert mask[query, key] == near


@pytest.mark.parametrize("offset", [-9, -2, 0, 1, 9])
@pytest.mark.parametrize("axis", [0, 1])
def test_shift_1d(offset, axis):
    x = np.arange(1.0, 16.0).reshape(3, 5)
    expected = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        source = list(index)
        source[axis] -= offset
        if 0 <= source[axis] < x.shape[axis]:
            expected[index] = x[tuple(source)]
    np.testing.assert_array_equal(attentions.shift_1d(jnp.array(x), offset, axis), expected)


@pytest.mark.parametrize(("size", "left", "right"), [(7, 2, 1), (1, 1, 0), (3, 4, 1), (4, 2, 4)])
def test_blocks_hold_their_context(size, left, right):
    """28, attentions: block and context extraction, local mask equal to a loop."""
    time = 11
    x = np.arange(1.0, 2 * time * 3 + 1).reshape(2, time, 3)
    blocks = attentions.convert_to_block(jnp.array(x), size, -1.0)
    context = attentions.extract_block_context(jnp.array(x), size, left, right, -1.0)
    mask = local_block_mask(time, size, left, right)
    num_blocks = -(-time // size)
    assert blocks.shape == (2, num_blocks, size, 3)
    assert mask.shape == (num_blocks, size, size + left - 1 + right)
    at = lambda t: x[:, t] if 0 <= t < time else np.full([2, 3], -1.0)  # noqa: E731
    for block in range(num_blocks):
        for place in range(size):
            np.testing.assert_array_equal(blocks[:, block, place], at(block * size + place))
        for place in range(size + left - 1 + right):
            key = block * size - left + 1 + place
            np.testing.assert_array_equal(context[:, block, place], at(key))
            for query in range(block * size, (block + 1) * size):
                near = query - left < key <= query + right
                expected = near and 0 <= key < time and query < time
                assert mask[block, query - block * size, place] == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1, 0), "block_size is 0, expected at least 1"),
        ((3, 5, 0), r"left_context is 5, expected 1 to block_size \+ 1 = 4"),
        ((3, 1, 4), "right_context is 4, expected 0 to block_size = 3"),
    ],
)
def test_block_sizes_out_of_range_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        attentions.extract_block_context(jnp.ones([2, 5, 3]), *sizes)


def test_block_size_below_1_is_refused():
    with pytest.raises(ValueError, match="convert_to_block: block_size is 0"):
        attentions.convert_to_block(jnp.ones([2, 5, 3]), 0)

"""Behaviours 23-30 of the utilities: masks, paddings, sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import py_utils


def assert_close(x, y):
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("lengths", [2, [3, 0, 5], [[1, 2], [0, 5]]])
def test_sequence_mask_and_paddings(lengths):
    """Behaviour 23."""
    want = np.arange(5) < np.asarray(lengths)[..., np.newaxis]
    mask = py_utils.sequence_mask(lengths, 5)
    np.testing.assert_array_equal(mask, want)
    assert mask.dtype == jnp.bool
    paddings = py_utils.sequence_paddings(lengths, 5)
    np.testing.assert_array_equal(paddings, 1.0 - want)
    assert paddings.dtype == jnp.float32
    assert py_utils.sequence_mask(lengths, 5, dtype=jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8", "int32"])
def test_large_negative_number(dtype):
    """Behaviour 24."""
    number = py_utils.get_large_negative_number(dtype)
    info = jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)
    assert number.dtype == dtype and number.shape == ()
    np.testing.assert_allclose(float(number), -0.7 * float(info.max), rtol=2e-2)  # bfloat16, int8
    assert np.isfinite(float(number))


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_large_negative_number_of_another_kind(dtype):
    """Behaviour 24."""
    with pytest.raises(ValueError, match=f"floating or integer dtype, got {dtype}"):
        py_utils.get_large_negative_number(dtype)


KEEP = np.array([[True, False, True], [False, True, True]])


@pytest.mark.parametrize("logits_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mask_dtype", ["bool", "float32", "float16", "bfloat16"])
def test_apply_mask_to_logits(logits_dtype, mask_dtype):
    """Behaviour 25."""
    logits = jnp.arange(6, dtype=logits_dtype).reshape(2, 3)
    mask = KEEP
    if mask_dtype != "bool":
        mask = jnp.where(KEEP, 0, py_utils.get_large_negative_number(mask_dtype))
    got = py_utils.apply_mask_to_logits(logits, mask)
    assert got.dtype == logits_dtype
    np.testing.assert_array_equal(got[KEEP], logits[KEEP])
    np.testing.assert_array_equal(got[~KEEP], py_utils.get_large_negative_number(logits_dtype))


def test_finite_part_of_a_relative_bias_is_kept():
    logits = jnp.zeros([1, 2])
    got = py_utils.apply_mask_to_logits(logits, jnp.array([[-1e30, -1e38 * 2.3]]))
    np.testing.assert_array_equal(got[0, 0], 0)
    assert got[0, 1] < -1e38


def test_integer_mask_is_refused():
    with pytest.raises((TypeError, ValueError), match="mask"):
        py_utils.apply_mask_to_logits(jnp.zeros([2]), jnp.zeros([2], jnp.int32))


X = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)
PADDINGS = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]], np.float32)


@pytest.mark.parametrize("pad_value", [None, 7.0])
@pytest.mark.parametrize("use_select", [True, False])
@pytest.mark.parametrize("axis", [None, 0])
def test_apply_padding_forms_agree(pad_value, use_select, axis):
    """Behaviour 26."""
    paddings = PADDINGS if axis == 0 else PADDINGS[:, :, np.newaxis]
    got = py_utils.apply_padding(X, paddings, pad_value=pad_value, use_select=use_select, axis=axis)
    want = np.where(PADDINGS[:, :, np.newaxis] > 0, pad_value or 0.0, X)
    assert_close(got, want)


def test_apply_padding_from_a_later_axis():
    """Behaviour 26: paddings [1, T] of inputs [B, T, D] from axis 0, [B, T, 1] from axis 1."""
    row = PADDINGS[:1]
    got = py_utils.apply_padding(X, row, axis=0)
    assert_close(got, np.where(row[:, :, np.newaxis] > 0, 0.0, X))
    got = py_utils.apply_padding(X, PADDINGS, axis=1)
    assert_close(got, np.where(PADDINGS[:, :, np.newaxis] > 0, 0.0, X))


@pytest.mark.parametrize(("use_select", "is_nan"), [(True, False), (False, True)])
def test_select_removes_nan_in_padded_places(use_select, is_nan):
    """Behaviour 26."""
    x = np.where(PADDINGS > 0, np.nan, 1.0).astype(np.float32)
    got = py_utils.apply_padding(x, PADDINGS, use_select=use_select)
    assert bool(jnp.isnan(got).any()) is is_nan


def test_apply_padding_names_shapes_it_cannot_align():
    with pytest.raises(ValueError, match=r"\(2, 3, 5\).*\(2, 3\) at axis 0"):
        py_utils.apply_padding(PADDINGS, X, axis=0)


def test_flip_twice_keeps_the_valid_part():
    """Behaviour 27."""
    lengths = jnp.array([3, 2])
    flipped = py_utils.flip_sequence(X, lengths)
    for row, length in enumerate([3, 2]):
        np.testing.assert_array_equal(flipped[row, :length], X[row, :length][::-1])
        twice = py_utils.flip_sequence(flipped, lengths)
        np.testing.assert_array_equal(twice[row, :length], X[row, :length])


def paddings_of(lengths, maxlen):
    return (np.arange(maxlen) >= np.asarray(lengths)[:, np.newaxis]).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=2))
def test_concat_against_a_loop(lengths):
    """Behaviour 28."""
    first, second = (list(each) for each in zip(*lengths, strict=True))
    x0, x1 = X, -X[:, :2]
    got, paddings = py_utils.concat_sequences_with_padding(
        x0, paddings_of(first, 3), x1, paddings_of(second, 2)
    )
    assert got.shape == (2, 5, 5) and paddings.shape == (2, 5)
    for row, (len0, len1) in enumerate(lengths):
        valid = np.concatenate([x0[row, :len0], x1[row, :len1]])
        np.testing.assert_array_equal(got[row, : len0 + len1], valid)
        np.testing.assert_array_equal(paddings[row], paddings_of([len0 + len1], 5)[0])


def test_concat_counts_long_bfloat16_paddings():
    """bfloat16 cannot represent 301."""
    x = jnp.arange(301, dtype=jnp.float32)[jnp.newaxis]
    paddings = jnp.zeros([1, 301], jnp.bfloat16)
    got, _ = py_utils.concat_sequences_with_padding(x, paddings, x, paddings)
    np.testing.assert_array_equal(got[0], np.tile(np.arange(301), 2))


@pytest.mark.parametrize(
    ("x1", "paddings1", "message"),
    [
        (X[:1], PADDINGS[:1], r"input0 has shape \(2, 3, 5\), input1 \(1, 3, 5\)"),
        (X[..., :2], PADDINGS, r"input0 has shape \(2, 3, 5\), input1 \(2, 3, 2\)"),
        (X, PADDINGS[:, :2], r"input1 \(2, 3, 5\) and paddings1 \(2, 2\)"),
    ],
)
def test_concat_names_shapes_that_differ(x1, paddings1, message):
    with pytest.raises(ValueError, match=message):
        py_utils.concat_sequences_with_padding(X, PADDINGS, x1, paddings1)


EOS = 2
ROWS = [
    # row, length, what comes with room for one more
    ([3, 4, 5], 3, [3, 4, 5, EOS], 4),
    ([3, 4, EOS], 3, [3, 4, EOS, EOS], 3),
    ([3, 9, 9], 1, [3, EOS, EOS, EOS], 2),
    ([3, EOS, 9], 2, [3, EOS, EOS, EOS], 2),
    ([9, 9, 9], 0, [EOS, EOS, EOS, EOS], 1),
]


@pytest.mark.parametrize("extend", [None, True])
def test_append_eos_table(extend):
    """Behaviour 29."""
    rows, lengths, want, want_lengths = (list(each) for each in zip(*ROWS, strict=True))
    ids, paddings = py_utils.append_eos(
        np.asarray(rows), paddings_of(lengths, 3), EOS, extend=extend
    )
    np.testing.assert_array_equal(ids, want)
    np.testing.assert_array_equal(paddings, paddings_of(want_lengths, 4))


def test_append_eos_without_overflow_keeps_the_width():
    """Behaviour 29."""
    ids, paddings = py_utils.append_eos(np.array([[3, 9]]), paddings_of([1], 2), EOS)
    np.testing.assert_array_equal(ids, [[3, EOS]])
    np.testing.assert_array_equal(paddings, [[0.0, 0.0]])


@pytest.mark.parametrize("fields", [{"extend_if_overflow": False}, {"extend": False}])
def test_append_eos_may_leave_a_full_row(fields):
    """Behaviour 29."""
    ids, _ = py_utils.append_eos(np.array([[3, 4]]), paddings_of([2], 2), EOS, **fields)
    np.testing.assert_array_equal(ids, [[3, 4]])


def test_append_eos_under_jit_needs_a_static_width():
    x, paddings = jnp.array([[3, 4]]), jnp.zeros([1, 2])

    def append(x, paddings, extend=None):
        return py_utils.append_eos(x, paddings, EOS, extend=extend)

    with pytest.raises(ValueError, match="Pass extend=True"):
        jax.jit(append)(x, paddings)
    ids, _ = jax.jit(append, static_argnames="extend")(x, paddings, extend=True)
    np.testing.assert_array_equal(ids, [[3, 4, EOS]])


@pytest.mark.parametrize("shape", [(3, 2, 7), (1, 1, 1), (2, 3, 5)])
def test_pad_or_trim_both_ways(shape):
    """Behaviour 30."""
    got = py_utils.pad_or_trim_to(X, shape, pad_val=-1)
    want = np.full(shape, -1.0)
    inside = tuple(slice(0, min(pair)) for pair in zip(shape, X.shape, strict=True))
    want[inside] = X[inside]
    assert_close(got, want)


def test_pad_or_trim_of_nothing_and_of_another_rank():
    """Behaviour 30."""
    assert py_utils.pad_or_trim_to(None, [2]) is None
    with pytest.raises(ValueError, match=r"\(2, 3, 5\), which has rank 3.*\(2, 2\) has rank 2"):
        py_utils.pad_or_trim_to(X, [2, 2])


@pytest.mark.parametrize("axis", [-1, (0, 1)])
def test_l2_normalize(axis):
    x = X.astype(np.float64)
    want = x / np.sqrt(np.sum(x**2, axis=axis, keepdims=True) + 1e-3)
    assert_close(py_utils.l2_normalize(X, axis=axis, epsilon=1e-3), want)
    np.testing.assert_array_equal(py_utils.l2_normalize(jnp.zeros([3])), np.zeros(3))

"""Properties of masks, paddings and sequences (behaviours 23-30 of the utilities)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import py_utils

# One shape throughout, so that each operation compiles once.
B, T, D = 3, 5, 2
few = settings(deadline=None, max_examples=25, derandomize=True)
LENGTHS = st.lists(st.integers(0, T), min_size=B, max_size=B).map(np.asarray)
SEEDS = st.integers(0, 2**16)


def normal(seed, *shape):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


@few
@given(LENGTHS)
def test_masks_and_paddings_are_complements(lengths):
    """Behaviour 23."""
    mask = py_utils.sequence_mask(jnp.asarray(lengths), T)
    paddings = py_utils.sequence_paddings(jnp.asarray(lengths), T)
    np.testing.assert_array_equal(mask, np.asarray(paddings) == 0)
    np.testing.assert_array_equal(np.sum(mask, -1), lengths)
    assert np.all(np.diff(np.asarray(paddings), axis=-1) >= 0), "padding is at the end"


@few
@given(LENGTHS, SEEDS, st.floats(-3, 3, width=32), st.booleans())
def test_padding_is_idempotent_and_touches_padded_places_only(lengths, seed, value, use_select):
    """Behaviour 26."""
    x = normal(seed, B, T, D)
    paddings = py_utils.sequence_paddings(jnp.asarray(lengths), T)

    def pad(x):
        return py_utils.apply_padding(
            x, paddings, pad_value=jnp.float32(value), use_select=use_select, axis=0
        )

    once, keep = pad(x), np.asarray(paddings) == 0
    np.testing.assert_array_equal(np.asarray(once)[keep], np.asarray(x)[keep])
    np.testing.assert_array_equal(np.asarray(once)[~keep], np.float32(value))
    np.testing.assert_array_equal(pad(once), once)


@few
@given(LENGTHS, SEEDS)
def test_flipping_twice_gives_back_what_is_not_padding(lengths, seed):
    """Behaviour 27."""
    x, lengths = normal(seed, B, T, D), jnp.asarray(lengths)
    keep = np.asarray(py_utils.sequence_mask(lengths, T))
    flipped = py_utils.flip_sequence(x, lengths)
    twice = py_utils.flip_sequence(flipped, lengths)
    np.testing.assert_array_equal(np.asarray(twice)[keep], np.asarray(x)[keep])
    padded = jnp.where(keep[..., np.newaxis], x, 0.0)
    flipped_again = jnp.where(keep[..., np.newaxis], py_utils.flip_sequence(padded, lengths), 0.0)
    np.testing.assert_allclose(padded.sum(1), flipped_again.sum(1), atol=1e-5)


@few
@given(LENGTHS, LENGTHS, SEEDS)
def test_concatenation_keeps_both_in_order(lengths, other_lengths, seed):
    """Behaviour 28: what is no padding, one after the other, then padding."""
    x, y = normal(seed, B, T, D), normal(seed + 1, B, T, D)
    first = py_utils.sequence_paddings(jnp.asarray(lengths), T)
    second = py_utils.sequence_paddings(jnp.asarray(other_lengths), T)
    joined, paddings = py_utils.concat_sequences_with_padding(x, first, y, second)
    total = lengths + other_lengths
    assert joined.shape == (B, 2 * T, D)
    np.testing.assert_array_equal(paddings, py_utils.sequence_paddings(jnp.asarray(total), 2 * T))
    for row in range(B):
        want = np.concatenate([x[row, : lengths[row]], y[row, : other_lengths[row]]])
        np.testing.assert_array_equal(joined[row, : total[row]], want)


@few
@given(st.lists(st.integers(0, 4), min_size=B * T, max_size=B * T), LENGTHS)
def test_each_row_ends_once(ids, lengths):
    """Behaviour 29: appending twice changes nothing; all before the end is as it was."""
    eos = 4
    x = jnp.asarray(ids).reshape(B, T)
    paddings = py_utils.sequence_paddings(jnp.asarray(lengths), T)
    once, padded = py_utils.append_eos(x, paddings, eos)
    counts = np.sum(np.asarray(padded) == 0, -1)
    for row, length in enumerate(lengths):
        had_end = length > 0 and x[row, length - 1] == eos
        assert counts[row] == length + (not had_end)
        np.testing.assert_array_equal(once[row, :length], x[row, :length])
        assert np.all(np.asarray(once)[row, counts[row] - 1 :] == eos)
    again, padded_again = py_utils.append_eos(once, padded, eos)
    np.testing.assert_array_equal(again, once)
    np.testing.assert_array_equal(padded_again, padded)


@few
@given(st.integers(1, 7), st.integers(1, 7), SEEDS)
def test_padding_and_trimming_are_inverse_where_nothing_is_cut(rows, columns, seed):
    """Behaviour 30."""
    x = np.random.default_rng(seed).standard_normal([4, 3]).astype(np.float32)
    there: Any = py_utils.pad_or_trim_to(jnp.asarray(x), [rows, columns], pad_val=7)
    assert there.shape == (rows, columns)
    common = (slice(min(rows, 4)), slice(min(columns, 3)))
    np.testing.assert_array_equal(there[common], x[common])
    outside = np.ones([rows, columns], bool)
    outside[common] = False
    assert np.all(np.asarray(there)[outside] == 7)


@few
@given(LENGTHS.filter(lambda lengths: lengths.min() > 0), SEEDS)
def test_masked_logits_have_no_probability(lengths, seed):
    """Behaviour 25: the rest is a softmax over what is kept."""
    logits = normal(seed, B, T)
    keep = py_utils.sequence_mask(jnp.asarray(lengths), T)
    probs = np.asarray(jax.nn.softmax(py_utils.apply_mask_to_logits(logits, keep)))
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(probs[row, length:], 0.0)
        np.testing.assert_allclose(
            probs[row, :length], jax.nn.softmax(logits[row, :length]), rtol=1e-5, atol=1e-7
        )

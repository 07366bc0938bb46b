"""Padding, slicing, repeating and aligning of what decoding carries; ends of texts; samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import py_utils
from praxis.decoding import extend, hypotheses, prefix, samples_axis, state, stop
from praxis.decoding.sample import sample_decode
from praxis.decoding.steps import decode_steps


def test_state_functions():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    padded = state.pad_state_fn(2)(x, 0, 1)
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (0, 2), (0, 0))))
    np.testing.assert_array_equal(state.slice_state_fn(0, -1)(x, 0, 1), x[:, :-1])
    np.testing.assert_array_equal(state.slice_state_fn(-2, 3)(x, 0, 1), x[:, -2:])
    repeated = state.batch_broadcast_state_fn(3)(x, 0, 1)
    np.testing.assert_array_equal(repeated, np.repeat(x, 3, axis=0))
    for fn in (state.pad_state_fn(2), state.slice_state_fn(0, 1)):
        np.testing.assert_array_equal(fn(x, 0, -1), x)
    np.testing.assert_array_equal(state.batch_broadcast_state_fn(3)(x, -1, 1), x)


def test_right_align():
    """Behaviour 28."""
    x = jnp.array([[5, 3, 2, 5, 0, 0]])
    got = state.right_align_tensors(x, jnp.array([4]))
    np.testing.assert_array_equal(got, [[0, 0, 5, 3, 2, 5]])
    with pytest.raises(ValueError, match=r"align_dim is 2, but x has shape \(1, 6\)"):
        state.right_align_tensors(x, jnp.array([4]), align_dim=2)


@pytest.mark.parametrize(("batch_dim", "time_dim"), [(0, 1), (1, 0), (0, 2), (2, 0)])
def test_right_align_state_on_any_axes(batch_dim, time_dim):
    """Upstream aligns the wrong axis unless time is axis 1."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, 5, 3)).astype(np.float32)  # [B, S, D]
    want = np.zeros_like(rows)
    for row, length in enumerate((2, 4)):
        want[row, 5 - length :] = rows[row, :length]
    move = {"source": (0, 1), "destination": (batch_dim, time_dim)}
    moved = jnp.asarray(np.moveaxis(rows, **move))
    got = state.right_align_state_fn(jnp.array([2, 4]))(moved, batch_dim, time_dim)
    np.testing.assert_array_equal(got, np.moveaxis(want, **move))


def test_left_align_undoes_right_align():
    ids = jnp.array([[4, 5, 0, 0], [6, 7, 8, 9]])
    lengths = jnp.array([2, 4])
    aligned, paddings = prefix.right_align_prefix_ids(ids, lengths, jnp.bfloat16)
    np.testing.assert_array_equal(aligned, [[0, 0, 4, 5], [6, 7, 8, 9]])
    np.testing.assert_array_equal(paddings, [[1, 1, 0, 0], [0, 0, 0, 0]])
    assert paddings.dtype == jnp.bfloat16
    np.testing.assert_array_equal(state.left_align_tensor(aligned, lengths, 4, pad_value=0), ids)
    np.testing.assert_array_equal(
        prefix.right_align_segment_position(lengths, 5), [[0, 0, 0, 0, 1], [0, 0, 1, 2, 3]]
    )


def test_stop_sequences():
    """Behaviour 28: stop sequences [1,5,2], [0,0,3], [0,5,2] at steps 5, 2, 4."""
    ids = jnp.array([[9, 9, 9, 1, 5, 2], [9, 9, 3, 0, 0, 0], [9, 9, 9, 5, 2, 0]])
    stops = jnp.array([[1, 5, 2], [0, 0, 3], [0, 5, 2]])
    ends = [stop.end_with_sequences(stops, ids, step) for step in range(6)]
    assert [int(np.argmax(row)) for row in np.stack(ends, 1)] == [5, 2, 4]
    assert np.stack(ends).sum() == 3
    first = stop.find_first_new_stop_seq_match(jnp.array([2, 2, 2]), 4, stops[:, None], ids)
    np.testing.assert_array_equal(first, [3, 0, 2])
    none = stop.find_first_new_stop_seq_match(jnp.array([0, 3, 0]), 2, stops[:, None], ids)
    np.testing.assert_array_equal(none, [2, 2, 2])


def test_stop_sequence_that_is_longer_than_the_text_does_not_match():
    ids = jnp.array([[5, 2, 5]])
    assert not stop.end_with_sequences(jnp.array([[1, 5, 2]]), ids, 1)[0]


def test_any_of_several_end_tokens():
    np.testing.assert_array_equal(stop.has_any_eos(jnp.array([3, 1, 2]), (2, 3)), [1, 0, 1])


@pytest.mark.parametrize("terminal_ids", [[], [1], [1, 4]])
def test_two_stage_top_k(terminal_ids):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((2, 3, 7)).astype(np.float32)
    scores = rng.standard_normal((2, 3)).astype(np.float32)
    values, ids, best, where = hypotheses.two_stage_topk(
        jnp.asarray(logits), jnp.asarray(scores), terminal_ids
    )
    np.testing.assert_array_equal(ids.reshape(2, 3, 3), np.argsort(-logits, -1)[..., :3])
    total = np.take_along_axis(logits, np.asarray(ids).reshape(2, 3, 3), -1) + scores[..., None]
    total = total.reshape(2, 9) - 1e9 * np.isin(ids, terminal_ids)
    np.testing.assert_allclose(values, total, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(best, -np.sort(-total, -1)[:, :3], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(
        np.take_along_axis(np.asarray(values), np.asarray(where), 1), best
    )


def test_samples_are_sorted_by_their_log_probability():
    logprobs = jnp.array([[[1.0, -3.0, 1.0], [1.0, -1.0, -1.0], [1.0, -0.5, 1.0]]])
    result = py_utils.NestedMap(logprobs=logprobs, ids=jnp.array([[10, 11, 12]]))
    ordered = samples_axis.sort_samples_by_scores(result, 1.0)
    np.testing.assert_array_equal(ordered.ids, [[12, 11, 10]])
    with pytest.raises(ValueError, match=r"axis 0 of shape \(5,\) is not a multiple"):
        samples_axis.split_batch_dim(jnp.zeros([5]), 0, 2)


def test_extend_step_functions():
    expanded = extend.coerce_to_expanded_extend_step_fn(lambda model, ids, pos: (model, ids, pos))
    assert expanded(1, 2, 3, 4) == (1, 2, 3)
    full = extend.coerce_to_expanded_extend_step_fn(lambda model, ids, pos, state: state)
    assert full(1, 2, 3, 4) == 4
    with pytest.raises(ValueError, match="extend_step_fn takes 2 arguments, expected"):
        extend.coerce_to_expanded_extend_step_fn(lambda model, ids: ids)


def test_decode_steps():
    assert decode_steps(None, 9) == [9]
    assert decode_steps(3, 9) == [3]
    assert decode_steps([2, 5], 9) == [2, 5]
    with pytest.raises(ValueError, match="max_decode_steps is 0, expected at least 1 token"):
        decode_steps(0, 9)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, ValueError, "fprop_fn and transform_state_fn are needed to make the caches"),
        (
            {"num_samples": 0},
            ValueError,
            "num_samples is 0, expected at least 1",
        ),
    ],
)
def test_sample_decode_refuses(fields, error, message):
    arguments = {"lazy_broadcast_prefix_fn": None} | fields
    ids = jnp.zeros([2, 3], jnp.int32)
    with pytest.raises(error, match=message):
        sample_decode(
            None,
            lambda model, ids, pos: None,
            (lambda *_: None) if fields else None,
            next_token_sampler=lambda *_: py_utils.NestedMap(),
            prefix_ids=ids,
            prefix_paddings=jnp.zeros([2, 3]),
            seq_len=5,
            **{"num_samples": 1, "fprop_fn": (lambda *_: None) if fields else None} | arguments,
        )

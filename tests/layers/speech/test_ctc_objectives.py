"""CTC against sums over all paths, and alignments that have to be paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers import ctc_objectives as ctc

T, K = 5, 4  # frames, classes


def paddings(lengths, size):
    return jnp.asarray(np.arange(size)[np.newaxis] >= np.array(lengths)[:, np.newaxis], jnp.float32)


def collapse(path):
    """The labels that a path of classes stands for: repeats merged, then blanks left out."""
    return [int(c) for c, _ in itertools.groupby(path) if c != 0]


def loss_of_all_paths(logits, labels):
    """Negative log of the probability of all paths that collapse to the labels, in float64."""
    logits = np.asarray(logits, np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    paths = itertools.product(range(K), repeat=len(logits))
    total = sum(
        np.exp(sum(logprobs[t, c] for t, c in enumerate(path)))
        for path in paths
        if collapse(path) == list(labels)
    )
    return -np.log(total)


# Labels and number of frames of each example; equal neighbours need a blank between them.
CASES = [([1, 2, 3], 5), ([2, 2], 5), ([2, 2], 3), ([3], 4), ([1, 1, 2], 4), ([1, 2, 1], 3)]
LABELS = jnp.asarray([labels + [0] * (3 - len(labels)) for labels, _ in CASES], jnp.int32)
LABEL_PADDINGS = paddings([len(labels) for labels, _ in CASES], 3)
FRAME_PADDINGS = paddings([frames for _, frames in CASES], T)
LOGITS = jnp.asarray(np.random.default_rng(0).standard_normal([len(CASES), T, K]) * 2, jnp.float32)


@pytest.fixture(scope="module")
def computed():
    call = jax.jit(ctc.ctc_loss_with_alignments)
    return call, call(LOGITS, FRAME_PADDINGS, LABELS, LABEL_PADDINGS)


def test_loss_is_that_of_all_paths(computed):
    want = [
        loss_of_all_paths(LOGITS[i, :frames], labels) for i, (labels, frames) in enumerate(CASES)
    ]
    np.testing.assert_allclose(computed[1][0], want, rtol=2e-5)


def test_padded_frames_and_labels_change_nothing(computed):
    call, (loss, alignments) = computed
    padded_logits = jnp.where(FRAME_PADDINGS[:, :, None] > 0, 50.0 + LOGITS, LOGITS)
    padded_labels = jnp.where(LABEL_PADDINGS > 0, 3, LABELS)
    other_loss, others = call(padded_logits, FRAME_PADDINGS, padded_labels, LABEL_PADDINGS)
    np.testing.assert_allclose(other_loss, loss, rtol=2e-5)
    np.testing.assert_array_equal(others.alignment, alignments.alignment)


def test_alignments_never_go_back_and_end_with_the_last_label(computed):
    alignment = np.asarray(computed[1][1].alignment)
    steps = np.diff(alignment, axis=1, prepend=0)
    assert np.all((steps == 0) | (steps == 1))
    for row, (labels, frames) in zip(alignment, CASES, strict=True):
        assert np.all(row[frames - 1 :] == len(labels))


def test_both_passes_see_the_whole_sequence(computed):
    """The last forward and the first backward probabilities are those of all labels."""
    loss, alignments = computed[1]
    np.testing.assert_allclose(alignments.logbeta_phi[0, :, 0], -loss, rtol=2e-5)
    last = [alignments.logalpha_phi[-1, i, len(labels)] for i, (labels, _) in enumerate(CASES)]
    np.testing.assert_allclose(last, -loss, rtol=2e-5)


def test_alignment_follows_clear_logits():
    path = np.array([[0, 1, 1, 0, 2, 3, 3, 0], [2, 2, 0, 2, 0, 0, 0, 0]])
    logits = 20.0 * jax.nn.one_hot(path, K)
    frames, labels = paddings([8, 5], 8), paddings([3, 2], 3)
    starts = ctc.forced_alignment(logits, frames, jnp.array([[1, 2, 3], [2, 2, 0]]), labels)
    np.testing.assert_array_equal(starts, [[1, 4, 5], [0, 3, 0]])


def test_more_labels_than_frames():
    """The loss is huge and there is no alignment, also with more labels than columns of frames."""
    frames, labels = paddings([2, 2], 2), jnp.array([[1, 2, 3], [1, 2, 0]])
    label_paddings = paddings([3, 2], 3)
    loss, _ = ctc.ctc_loss_with_alignments(LOGITS[:2, :2], frames, labels, label_paddings)
    assert loss[0] > 5e4 > 100.0 > loss[1]
    starts = ctc.forced_alignment(LOGITS[:2, :2], frames, labels, label_paddings)
    np.testing.assert_array_equal(starts, [[-1, -1, -1], [0, 1, 0]])


def test_bfloat16_logits_give_the_loss_of_float32(computed):
    low = LOGITS.astype(jnp.bfloat16)
    arguments = (FRAME_PADDINGS, LABELS, LABEL_PADDINGS)
    loss, alignments = computed[0](low.astype(jnp.float32), *arguments)
    low_loss, low_alignments = computed[0](low, *arguments)
    np.testing.assert_array_equal(low_loss, loss)
    np.testing.assert_array_equal(low_alignments.state_logprobs, alignments.state_logprobs)


@pytest.mark.parametrize(
    ("labels", "num_labels", "num_frames", "valid"),
    [
        ([1, 2, 3], 3, 3, 1.0),
        ([1, 2, 3], 3, 2, 0.0),
        ([1, 1, 2], 3, 4, 1.0),
        ([1, 1, 2], 3, 3, 0.0),
        ([2, 2, 2], 3, 5, 1.0),
        ([2, 2, 2], 3, 4, 0.0),
        ([4, 0, 0], 1, 1, 1.0),  # equal padding needs no blanks
        ([0, 0, 0], 1, 1, 1.0),  # nor does padding that is equal to the last label
    ],
)
def test_is_valid_ctc_seq(labels, num_labels, num_frames, valid):
    found = ctc.is_valid_ctc_seq(
        paddings([num_frames], T), jnp.array([labels]), paddings([num_labels], 3)
    )
    np.testing.assert_array_equal(found, [valid])


@pytest.mark.parametrize(
    ("alignment", "num_frames", "starts"),
    [
        ([0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3], 9, [4, 6, 8]),
        ([1, 2, 3, 3], 4, [0, 1, 2]),
        ([0, 0, 1, 2], 3, [2]),
        ([0, 0], 2, []),
    ],
)
def test_starts_of_labels(alignment, num_frames, starts):
    size = len(alignment)
    found, count = ctc.frame_alignment_to_label_alignment(
        jnp.array([alignment]), paddings([num_frames], size)
    )
    np.testing.assert_array_equal(found, [starts + [0] * (size - len(starts))])
    np.testing.assert_array_equal(count, [len(starts)])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"logitpaddings": jnp.zeros([2, T + 1])}, rf"logitpaddings \(2, {T + 1}\)"),
        ({"labels": jnp.ones([3, 3], jnp.int32)}, r"labels \(3, 3\)"),
        ({"labelpaddings": jnp.zeros([2, 4])}, r"labelpaddings \(2, 4\)"),
        (
            {"labels": jnp.ones([2, 0], jnp.int32), "labelpaddings": jnp.zeros([2, 0])},
            r"labels \(2, 0\).*N at least 1",
        ),
        ({"blank_id": K}, rf"blank_id is {K}, expected a class from 0 to K - 1 = {K - 1}"),
        ({"blank_id": -1}, "blank_id is -1"),
    ],
)
def test_errors_name_the_shapes(change, text):
    arguments = {
        "logits": LOGITS[:2],
        "logitpaddings": FRAME_PADDINGS[:2],
        "labels": LABELS[:2],
        "labelpaddings": LABEL_PADDINGS[:2],
    }
    with pytest.raises(ValueError, match=text):
        ctc.ctc_loss_with_alignments(**(arguments | change))

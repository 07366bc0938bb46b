"""Behaviour 37 of the utilities: accuracy."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import metric_utils

LOGITS = jnp.array([[0.1, 0.9, 0.5], [0.7, 0.7, 0.2], [0.3, 0.2, 0.1]])
LABELS = jnp.array([2, 1, 1])


@pytest.mark.parametrize(("top_k", "want"), [(1, 1 / 3), (2, 1.0), (3, 1.0)])
def test_ties_count_as_correct(top_k, want):
    """Behaviour 37."""
    got = metric_utils.top_k_accuracy(top_k, LOGITS, label_ids=LABELS)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert got.dtype == jnp.float32


def test_labels_may_be_probabilities():
    probs = jnp.eye(3)[LABELS] * 0.5
    got = metric_utils.top_k_accuracy(1, LOGITS, label_probs=probs)
    np.testing.assert_allclose(got, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        ([1.0, 3.0, 0.0], 3 / 4),
        ([0.0, 0.0, 0.0], 0.0),
        ([0.0, 0.25, 0.25], 0.25),  # the sum of the weights counts as at least 1
    ],
)
def test_weights(weights, want):
    """Behaviour 37."""
    got = metric_utils.top_k_accuracy(1, LOGITS, label_ids=LABELS, weights=jnp.array(weights))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="pass label_ids or label_probs, got neither"):
        metric_utils.top_k_accuracy(1, LOGITS)
    for top_k in (0, 4):
        with pytest.raises(ValueError, match=rf"top_k is {top_k}, expected 1 to 3"):
            metric_utils.top_k_accuracy(top_k, LOGITS, label_ids=LABELS)

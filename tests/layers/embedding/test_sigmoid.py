"""SigmoidCrossEntropy: transformers 5.7."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers.embedding.sigmoid import SigmoidCrossEntropy

RNG = np.random.default_rng(0)
W, BIAS = RNG.standard_normal((3, 7)), RNG.standard_normal(7)
VARIABLES = {
    "params": {"logits_ffn": {"linear": {"w": jnp.float32(W)}, "bias": {"b": jnp.float32(BIAS)}}}
}
X = jnp.float32(RNG.standard_normal((2, 5, 3)))
IDS = jnp.asarray(RNG.integers(0, 7, (2, 5, 1)).astype(np.int32))
WEIGHTS = jnp.float32(RNG.random((2, 5, 1)))
PROBS = jnp.float32(RNG.random((2, 5, 7)))


def build(**fields):
    fields = {"name": "sigmoid", "input_dims": 3, "num_classes": 7} | fields
    return pax_fiddle.build(pax_fiddle.Config(SigmoidCrossEntropy, **fields))


def class_losses(probs, logits=None):
    """Log-likelihood of independent yes-or-no answers, in float64."""
    logits = np.float64(X) @ W + BIAS if logits is None else np.float64(logits)
    yes = 1 / (1 + np.exp(-logits))
    return -(probs * np.log(yes) + (1 - probs) * np.log1p(-yes))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("labels", ["ids", "probabilities"])
def test_example_weights(labels):
    by_ids = labels == "ids"
    kwargs = {"class_ids": IDS} if by_ids else {"class_probabilities": PROBS}
    outputs = build().apply(VARIABLES, X, WEIGHTS, **kwargs)
    probs = (np.asarray(IDS) == np.arange(7)) if by_ids else np.float64(PROBS)
    xent = class_losses(probs).sum(axis=-1)
    total, weight = (xent * np.float64(WEIGHTS[..., 0])).sum(), np.float64(WEIGHTS).sum()
    close(outputs.per_example_xent, xent)
    close(outputs.total_xent, total)
    close(outputs.total_weight, weight)
    close(outputs.avg_xent, total / (weight + 1e-6))
    logits = np.float64(X) @ W + BIAS
    close(outputs.logits, logits)
    close(outputs.log_probs, -np.log1p(np.exp(-logits)))
    np.testing.assert_array_equal(outputs.per_example_argmax, np.argmax(logits, axis=-1))


def test_class_weights():
    weights = jnp.float32(RNG.random((2, 5, 7)))
    outputs = build().apply(VARIABLES, X, weights, class_probabilities=PROBS)
    xent = (class_losses(np.float64(PROBS)) * weights).sum(axis=-1)
    close(outputs.per_example_xent, xent)
    close(outputs.total_xent, xent.sum())
    close(outputs.total_weight, weights.sum())


def test_soft_cap_needs_a_projection():
    logits = build(soft_cap_logits=2.0).apply(VARIABLES, X, method="get_logits")
    close(logits, 2 * np.tanh((np.float64(X) @ W + BIAS) / 2))
    plain = build(soft_cap_logits=2.0, feed_forward_tpl=None, input_dims=7)
    outputs = plain.apply({}, PROBS, WEIGHTS, class_probabilities=PROBS)
    np.testing.assert_array_equal(outputs.logits, PROBS)
    close(outputs.per_example_xent, class_losses(np.float64(PROBS), PROBS).sum(axis=-1))


def test_huge_logits_stay_finite():
    layer = build(feed_forward_tpl=None, input_dims=2, num_classes=2)
    logits, probs = jnp.array([[1e4, -1e4]]), jnp.array([[1.0, 1.0]])
    outputs = layer.apply({}, logits, jnp.ones([1, 1]), class_probabilities=probs)
    close(outputs.per_example_xent, [1e4])


def test_outputs_take_the_dtype_of_the_inputs():
    outputs = build(fprop_dtype=jnp.bfloat16).apply(
        VARIABLES, X.astype(jnp.bfloat16), WEIGHTS, class_probabilities=PROBS
    )
    argmax = outputs.pop("per_example_argmax")
    assert argmax.dtype == jnp.int32
    assert {x.dtype.name for x in jax.tree.leaves(outputs)} == {"bfloat16"}


@pytest.mark.parametrize(
    ("fields", "kwargs", "error", "message"),
    [
        ({}, {}, ValueError, r"'sigmoid'.*neither class_ids nor class_probabilities"),
        (
            {"feed_forward_tpl": None},
            {"class_ids": IDS},
            ValueError,
            r"feed_forward_tpl is None.*input_dims = 3 is not num_classes = 7",
        ),
        ({"num_classes": 1}, {"class_ids": IDS}, ValueError, r"num_classes = 1 an id says nothing"),
        ({"num_classes": 0}, {"class_ids": IDS}, ValueError, r"'sigmoid'.*num_classes is 0"),
        ({"input_dims": 2}, {"class_ids": IDS}, ValueError, r"\(2, 5, 3\).*input_dims = 2"),
        ({}, {"class_ids": WEIGHTS}, TypeError, r"'sigmoid'.*class_ids have dtype float32"),
        (
            {},
            {"class_ids": IDS, "class_weights": WEIGHTS[..., 0]},
            ValueError,
            r"class_weights have shape \(2, 5\), expected \(2, 5, 1\) or \(2, 5, 7\)",
        ),
    ],
)
def test_bad_arguments(fields, kwargs, error, message):
    kwargs = {"class_weights": WEIGHTS} | kwargs
    with pytest.raises(error, match=message):
        build(**fields).init(jax.random.PRNGKey(0), X, **kwargs)

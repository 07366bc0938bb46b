"""Bi-tempered loss: formula, gradient, schedule and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import losses

TEMPERATURES = [(1.0, 1.0), (0.8, 1.2), (0.5, 1.5), (0.2, 4.0), (1.0, 1.3), (1.3, 1.0), (0.5, 0.8)]


# The temperatures are traced, as under a schedule: one compilation serves them all.
compiled_loss = jax.jit(losses.bi_tempered_logistic_loss, static_argnames="label_smoothing")
compiled_loss_and_grads = jax.jit(
    jax.value_and_grad(losses.bi_tempered_logistic_loss, argnums=(0, 1))
)


def log_t(x, t):
    return np.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def exp_t(x, t):
    return np.exp(x) if t == 1 else np.maximum(0, 1 + (1 - t) * x) ** (1 / (1 - t))


def normalizer(x, t, iterations=5):
    """The normalizer of one example in NumPy, float64; the largest x is 0."""
    if t == 1:
        return np.log(np.sum(np.exp(x)))
    if t > 1:
        scaled = x
        for _ in range(iterations):
            scaled = x * np.sum(exp_t(scaled, t)) ** (1 - t)
        return -log_t(1 / np.sum(exp_t(scaled, t)), t)
    lower, upper = 0.0, -log_t(1 / np.sum(x > -1 / (1 - t)), t)
    for _ in range(iterations):
        middle = (lower + upper) / 2
        if np.sum(exp_t(x - middle, t)) > 1:
            lower = middle
        else:
            upper = middle
    return (lower + upper) / 2


def reference(logits, labels, t1, t2, smoothing=0.0, iterations=5):
    """The loss of one example in NumPy, float64."""
    num_classes = len(logits)
    labels = (1 - num_classes / (num_classes - 1) * smoothing) * labels
    labels = labels + smoothing / (num_classes - 1)
    shifted = logits - np.max(logits)
    probs = exp_t(shifted - normalizer(shifted, t2, iterations), t2)
    cost = labels * (log_t(labels + 1e-10, t1) - log_t(probs, t1))
    return np.sum(cost - (labels ** (2 - t1) - probs ** (2 - t1)) / (2 - t1))


def examples(kind, num_classes=7):
    """Logits and labels, [2, 3, V] each."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((2, 3, num_classes))
    if kind == "one_hot":
        return logits, np.eye(num_classes)[rng.integers(0, num_classes, (2, 3))]
    return logits, rng.dirichlet(np.ones(num_classes), (2, 3))


def build(**fields):
    return pax_fiddle.build(pax_fiddle.Config(losses.BiTemperedLoss, name="loss", **fields))


def run(layer, logits, labels, count=0.0, do_eval=False):
    """Returns the loss and the new count."""
    variables = {"non_trainable": {"count": jnp.float32(count)}}
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=do_eval)):
        loss, changed = layer.apply(
            variables, jnp.float32(logits), jnp.float32(labels), mutable=["non_trainable"]
        )
    return loss, changed["non_trainable"]["count"]


@pytest.mark.parametrize("kind", ["one_hot", "distribution"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("t1", "t2"), TEMPERATURES)
def test_matches_numpy(t1, t2, smoothing, kind):
    logits, labels = examples(kind)
    loss = compiled_loss(
        jnp.float32(logits), jnp.float32(labels), t1=t1, t2=t2, label_smoothing=smoothing
    )
    expected = [
        [reference(*example, t1, t2, smoothing) for example in zip(*rows, strict=True)]
        for rows in zip(logits, labels, strict=True)
    ]
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("t1", "t2", "expected"), [(0.8, 1.2, 0.34007), (1.0, 1.0, 0.40761), (0.5, 0.8, 0.11479)]
)
def test_values_of_one_example(t1, t2, expected):
    loss, _ = run(build(t1=t1, t2=t2), [[1, 2, 3]], [[0, 0, 1]], do_eval=True)
    np.testing.assert_allclose(loss, [expected], atol=5e-6)


def test_temperatures_of_one_give_the_cross_entropy():
    logits, labels = examples("one_hot")
    loss, _ = run(build(), logits, labels)
    expected = -jnp.sum(labels * jax.nn.log_softmax(jnp.float32(logits)), axis=-1)
    np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("near", [1 - 1e-6, 1 + 1e-6])
def test_no_digits_are_lost_close_to_the_cross_entropy(near):
    """A warm-up of a million calls has temperatures that differ from 1 in the last bits."""
    logits, labels = examples("one_hot")
    loss = compiled_loss(
        jnp.float32(logits), jnp.float32(labels), t1=near, t2=1 + 1e-6, label_smoothing=0.0
    )
    expected = -jnp.sum(labels * jax.nn.log_softmax(jnp.float32(logits)), axis=-1)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("t1", "t2"), [(1.0, 1.0), (0.8, 1.2), (1.0, 1.3), (1.3, 1.0)])
def test_gradient_is_that_of_the_converged_loss(t1, t2):
    """Against central differences of the NumPy formula after many iterations."""
    logits, labels = (rows[0, 0] for rows in examples("distribution"))
    _, (grad, _) = compiled_loss_and_grads(jnp.float32(logits), jnp.float32(labels), t1=t1, t2=t2)
    step = 1e-5 * np.eye(logits.size)
    expected = [
        reference(logits + d, labels, t1, t2, iterations=100)
        - reference(logits - d, labels, t1, t2, iterations=100)
        for d in step
    ]
    np.testing.assert_allclose(grad, np.divide(expected, 2e-5), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("t1", "t2"), TEMPERATURES)
def test_gradient_is_the_closed_form(t1, t2):
    """`delta - escorts * sum(delta)`, with the probabilities of 5 iterations; 0 for labels."""
    logits, labels = (rows[0, 0] for rows in examples("distribution"))
    _, (grad, label_grad) = compiled_loss_and_grads(
        jnp.float32(logits), jnp.float32(labels), t1=t1, t2=t2
    )
    shifted = logits - np.max(logits)
    probs = exp_t(shifted - normalizer(shifted, t2), t2)
    possible = probs > 0
    delta = np.where(possible, (probs - labels) * np.where(possible, probs, 1) ** (t2 - t1), 0)
    escorts = probs**t2 / np.sum(probs**t2)
    np.testing.assert_allclose(grad, delta - escorts * np.sum(delta), rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(label_grad, np.zeros(7))


@pytest.mark.parametrize(("t1", "t2"), TEMPERATURES)
@pytest.mark.parametrize("low", [-1e9, -np.inf])
def test_hidden_classes_do_not_count(t1, t2, low):
    """A class that a mask excludes and no label asks for changes nothing, and nothing is NaN."""
    logits, labels = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.0, 1.0])
    loss, (grad, _) = compiled_loss_and_grads(
        jnp.append(logits, low), jnp.append(labels, 0), t1=t1, t2=t2
    )
    expected_loss, (expected_grad, _) = compiled_loss_and_grads(logits, labels, t1=t1, t2=t2)
    # The heavy tail of t2 = 4 gives a logit of -1e9 the probability 0.0007, and a gradient.
    tail = 5e-3 if t2 == 4 and np.isfinite(low) else 2e-5
    np.testing.assert_allclose(loss, expected_loss, rtol=tail, atol=tail)
    np.testing.assert_allclose(grad, jnp.append(expected_grad, 0), rtol=tail, atol=tail)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_low_precision_logits_are_widened(dtype):
    logits, labels = (jnp.asarray(rows, jnp.bfloat16) for rows in examples("one_hot"))
    expected = losses.bi_tempered_logistic_loss(
        logits.astype(jnp.float32), labels.astype(jnp.float32), t1=0.8, t2=1.2
    )
    loss = losses.bi_tempered_logistic_loss(logits.astype(dtype), labels, t1=0.8, t2=1.2)
    np.testing.assert_array_equal(loss, expected, strict=True)


@pytest.mark.parametrize(
    ("fields", "shares"),
    [
        ({}, {0: 0, 1: 0, 100: 0}),
        ({"end_step": 4}, {0: 1, 1: 0.75, 3: 0.25, 4: 0, 5: 0}),
        ({"start_step": 3, "end_step": 5}, {0: 1, 3: 1, 4: 0.5, 5: 0}),
        ({"start_step": 2, "end_step": 2}, {0: 1, 2: 1, 3: 0}),
    ],
    ids=["none", "linear", "late", "jump"],
)
def test_schedule_moves_from_the_cross_entropy_to_the_temperatures(fields, shares):
    logits, labels = (rows[0, :1] for rows in examples("one_hot"))
    layer = build(t1=0.8, t2=1.2, **fields)
    for count, share in shares.items():
        loss, new_count = run(layer, logits, labels, count)
        expected = reference(
            logits[0], labels[0], share + (1 - share) * 0.8, share + (1 - share) * 1.2
        )
        np.testing.assert_allclose(loss, [expected], rtol=2e-5, atol=2e-5, err_msg=str(count))
        assert new_count == count + 1


def test_evaluation_takes_the_final_temperatures_and_does_not_count():
    logits, labels = (rows[0, :1] for rows in examples("one_hot"))
    layer = build(t1=0.8, t2=1.2, start_step=10, end_step=20)
    loss, count = run(layer, logits, labels, count=3, do_eval=True)
    expected = reference(logits[0], labels[0], 0.8, 1.2)
    np.testing.assert_allclose(loss, [expected], rtol=2e-5, atol=2e-5)
    assert count == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_step": 5, "end_step": 3}, r"end_step = 3 is below start_step = 5\. Set end_step"),
        ({"t1": 2.0}, r"t1 is 2\.0, expected a temperature below 2"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1\.0, expected a probability"),
        ({"label_smoothing": -0.1}, r"label_smoothing is -0\.1, expected a probability"),
    ],
)
def test_fields_out_of_range_are_named(fields, message):
    with pytest.raises(ValueError, match=rf"BiTemperedLoss 'loss': {message}"):
        run(build(**fields), np.zeros([2, 3]), np.zeros([2, 3]))


def test_labels_of_another_shape_are_refused():
    message = (
        r"BiTemperedLoss 'loss': logits have shape \(2, 3\) and labels have shape \(2,\), expected"
        r" \[\.\.\., V\] for both\. Labels are one-hot"
    )
    with pytest.raises(ValueError, match=message):
        run(build(), np.zeros([2, 3]), np.zeros([2]))


def test_smoothing_needs_a_second_class():
    message = r"BiTemperedLoss 'loss': label_smoothing is 0\.1, but logits of shape \(2, 1\)"
    with pytest.raises(ValueError, match=message):
        run(build(label_smoothing=0.1), np.zeros([2, 1]), np.ones([2, 1]))

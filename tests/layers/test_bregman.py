"""BregmanPCA: divergences and steps against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.bregman import (
    ActivationType,
    BregmanPCA,
    activate,
    bregman_divergence,
    deactivate,
)

B, D, K = 7, 5, 2
CHANGED = [base_layer.NON_TRAINABLE, base_layer.SUMMARIES]


def build(**fields):
    sizes = {"num_components": K, "input_dims": D, "end_step": 5}
    return pax_fiddle.build(pax_fiddle.Config(BregmanPCA, name="pca", **{**sizes, **fields}))


def outputs_of(kind, seed=0):
    x = jnp.float32(np.random.default_rng(seed).standard_normal([B, D]))
    return activate(x, kind, 0.3)


@pytest.mark.parametrize("kind", list(ActivationType), ids=lambda kind: kind.value)
def test_divergence_matches_its_activation(kind):
    """Its gradient is activation minus target; it is 0 where the target is met."""
    targets = outputs_of(kind)
    inputs = jnp.float32(np.random.default_rng(1).standard_normal([B, D]))
    grad = jax.grad(lambda x: jnp.sum(bregman_divergence(targets, x, kind, 0.3)))(inputs)
    np.testing.assert_allclose(grad, activate(inputs, kind, 0.3) - targets, rtol=2e-5, atol=2e-5)
    met = bregman_divergence(targets, deactivate(targets, kind, 0.3), kind, 0.3)
    np.testing.assert_allclose(met, np.zeros(B), atol=2e-6)
    assert (np.asarray(bregman_divergence(targets, inputs, kind, 0.3)) > 0).all()


def normalised(g):
    return g / max(np.linalg.norm(g), 1e-6) * np.sqrt(g.size)


def test_one_training_step_matches_numpy():
    layer = build(coefficients_steps=3, constant_lr_schedule=False, end_step=4)
    x = np.float64(np.random.default_rng(0).standard_normal([B, D]))
    variables = layer.init(jax.random.PRNGKey(0), jnp.float32(x))
    variables["non_trainable"]["step"] = jnp.float32(1.0)
    (passed, got), updates = layer.apply(variables, jnp.float32(x), mutable=CHANGED)
    np.testing.assert_array_equal(passed, np.float32(x))
    components = np.float64(variables["non_trainable"]["components"])
    mean = 0.01 * x.mean(0, keepdims=True)
    coefficients = momentum = np.zeros([B, K])
    for k in range(3):
        residual = coefficients @ components + mean - x
        momentum = 0.9 * momentum + 0.1 * normalised(residual @ components.T)
        coefficients = coefficients - (1 - k / 3) * 0.01 * momentum
    np.testing.assert_allclose(got, coefficients, rtol=2e-5, atol=2e-6)
    residual = coefficients @ components + mean - x
    rate = 0.01 * (1 - 1 / 4)
    moved = components - rate * 0.1 * normalised(coefficients.T @ residual)
    changed = updates["non_trainable"]
    np.testing.assert_allclose(changed["components"], moved, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(changed["mean"], mean, rtol=2e-5, atol=2e-6)
    loss = 0.5 * (residual**2).sum(-1).mean()
    np.testing.assert_allclose(updates["summaries"]["bregman_loss_scalar"], loss, rtol=2e-5)


def test_nothing_moves_outside_its_steps_or_for_masked_examples():
    layer = build(start_step=2, end_step=3)
    x = outputs_of(ActivationType.IDENTITY)
    variables = layer.init(jax.random.PRNGKey(0), x)
    _, early = layer.apply(variables, x, mutable=CHANGED)
    kept = variables["non_trainable"]
    np.testing.assert_array_equal(early["non_trainable"]["components"], kept["components"])
    assert float(early["non_trainable"]["step"]) == 1.0
    mask = jnp.arange(B) < 4
    layer = build()
    other = jnp.where(mask[:, jnp.newaxis], x, x[::-1])
    means = [
        layer.apply(variables, rows, mask, mutable=CHANGED)[1]["non_trainable"]["mean"]
        for rows in (x, other)
    ]
    np.testing.assert_array_equal(*means)


def test_reconstruction_gets_better():
    """Vectors of rank 2 are approximated better after training."""
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.standard_normal([B, K]) @ rng.standard_normal([K, D]))
    layer = build(end_step=200, coefficients_lr=0.2, components_lr=0.05)
    variables = layer.init(jax.random.PRNGKey(0), x)

    @jax.jit
    def train(variables):
        (_, coefficients), updates = layer.apply(variables, x, mutable=CHANGED[:1])
        return updates, coefficients

    def error(variables, coefficients):
        again = layer.apply(variables, coefficients, method="reconstruct")
        return float(jnp.mean(jnp.square(again - x)))

    def trained_error(variables):
        return error(variables, train(variables)[1])

    first = trained_error(variables)
    for _ in range(150):
        variables, _ = train(variables)
    assert trained_error(variables) < 0.5 * first


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_components": 0}, "BregmanPCA 'pca': num_components is 0"),
        ({"input_dims": [3, 0]}, r"input_dims is \(3, 0\), expected at least 1"),
        ({"end_step": 0}, "end_step = 0 is not more than start_step = 0"),
        ({"input_dims": 4}, r"inputs have shape \(7, 5\).*input_dims = \(4,\)"),
    ],
)
def test_errors_name_the_layer_and_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields).init(jax.random.PRNGKey(0), jnp.zeros([B, D]))

"""Normalizations of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.normalizations import SpectralNorm, WeightNormL2

W = np.random.default_rng(0).standard_normal([3, 2, 5, 7])
G = np.random.default_rng(1).standard_normal([7])


def build(cls, **fields):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="norm", **fields))


def test_weight_norm_gives_each_channel_its_norm():
    y = build(WeightNormL2, dim=7).apply({"params": {"g": jnp.float32(G)}}, jnp.float32(W))
    expected = (1 + G) * W / np.sqrt((W**2).sum((0, 1, 2)))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_spectral_norm_converges_to_norm_one():
    layer = build(SpectralNorm, dim=7, n_power_iteration=3)
    variables = layer.init(jax.random.PRNGKey(0), jnp.float32(W))
    step = jax.jit(lambda variables: layer.apply(variables, jnp.float32(W), mutable=True))
    y = jnp.float32(W)
    for _ in range(20):
        y, variables = step(variables)
    largest = np.linalg.svd(np.asarray(y, np.float64).reshape(-1, 7), compute_uv=False)[0]
    np.testing.assert_allclose(largest, 1.0, rtol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(variables["non_trainable"]["u"]), 1.0, rtol=2e-5)


def test_spectral_norm_keeps_u_in_evaluation():
    layer = build(SpectralNorm, dim=7)
    variables = layer.init(jax.random.PRNGKey(0), jnp.float32(W))
    context = base_layer.JaxContext.HParams(do_eval=True)
    with base_layer.JaxContext.new_context(hparams=context):
        _, updated = layer.apply(variables, jnp.float32(W), mutable=["non_trainable"])
    after = {**variables, **updated}["non_trainable"]["u"]
    np.testing.assert_array_equal(after, variables["non_trainable"]["u"])


def test_spectral_norm_returns_fprop_dtype():
    layer = build(SpectralNorm, dim=7, fprop_dtype=jnp.bfloat16)
    y = jax.eval_shape(
        lambda w: layer.init_with_output(jax.random.PRNGKey(0), w)[0], jnp.float32(W)
    )
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (WeightNormL2, {}, "dim is 0, expected at least 1"),
        (WeightNormL2, {"dim": 5}, r"\(3, 2, 5, 7\), expected .* D = dim = 5"),
        (SpectralNorm, {"dim": 5}, r"\(3, 2, 5, 7\), expected .* D = dim = 5"),
        (SpectralNorm, {"dim": 7, "n_power_iteration": 0}, "n_power_iteration is 0"),
    ],
)
def test_errors_name_the_layer_and_the_field(cls, fields, message):
    with pytest.raises(ValueError, match=f"{cls.__name__} 'norm': .*{message}"):
        build(cls, **fields).abstract_init_with_metadata(jnp.float32(W))

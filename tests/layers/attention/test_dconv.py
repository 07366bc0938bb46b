"""Causal depthwise convolution of attention heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import attentions

B, T, N, H, SIZE = 2, 7, 3, 5, 3


def build(**fields):
    fields = {"kernel_size": SIZE, "hidden_dims": [N, H], **fields}
    config = pax_fiddle.Config(attentions.CausalDepthwiseConv1D, name="conv", **fields)
    return pax_fiddle.build(config)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


TAPS = normal(0, SIZE, N, H)
VARIABLES = {"params": {f"dconv_{i}": jnp.float32(TAPS[i]) for i in range(SIZE)}}
POSITIONS = np.array([[0, 1, 2, 3, 0, 1, 2], [0, 0, 1, 0, 1, 2, 3]])


def reference(x, positions):
    out = np.zeros_like(x)
    for b, t, i in np.ndindex(B, T, SIZE):
        if positions[b, t] >= i:
            out[b, t] += x[b, t - i] * TAPS[i]
    return out


@pytest.mark.parametrize("packed", [False, True])
def test_call_and_steps_match_a_loop(packed):
    """28, attentions: causal conv against shifted sums, and its step, known and traced."""
    x = normal(1, B, T, N, H)
    positions = POSITIONS if packed else np.tile(np.arange(T), (B, 1))
    given = jnp.asarray(positions) if packed else None
    layer, want = build(), reference(x, positions)
    out = layer.apply(VARIABLES, jnp.float32(x), 1, given)
    np.testing.assert_allclose(out, want, rtol=2e-5, atol=2e-5)

    def step(t):
        position = None if given is None else given[:, t]
        return layer.apply(VARIABLES, jnp.float32(x), 1, t, position, method="extend_step")

    traced = jax.jit(step)
    for t in range(T):
        np.testing.assert_allclose(traced(t), want[:, t], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(step(4), want[:, 4], rtol=2e-5, atol=2e-5)


def test_first_weights():
    params = build().init(jax.random.PRNGKey(0), jnp.ones([B, T, N, H]), 1)["params"]
    for i, value in enumerate([0.5, 0.5 / SIZE, 0.5 / SIZE]):
        np.testing.assert_allclose(params[f"dconv_{i}"], np.full([N, H], value), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shape", "axis", "message"),
    [
        ({"kernel_size": 0}, (B, T, N, H), 1, "'conv': kernel_size is 0"),
        ({"hidden_dims": [N, 0]}, (B, T, N, H), 1, r"hidden_dims is .*3, 0.*, expected at least"),
        ({}, (B, T, N, H + 1), 1, r"shape \(2, 7, 3, 6\).*ends with hidden_dims = \(3, 5\)"),
        ({}, (B, T, N, H), 0, "with time on axis 0"),
        ({}, (B, T, N, H), 2, "with time on axis 2"),
    ],
)
def test_what_does_not_fit_is_refused(fields, shape, axis, message):
    with pytest.raises(ValueError, match=message):
        build(**fields).init(jax.random.PRNGKey(0), jnp.ones(shape), axis)

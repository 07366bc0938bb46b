"""Decoding caches that are kept in a narrower dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import attentions
from praxis.layers.attention.cache import dequantize_vectors, quantize_vectors

B, T, D, N, H = 2, 5, 6, 3, 4


def build(**fields):
    fields = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, **fields}
    return pax_fiddle.build(pax_fiddle.Config(attentions.DotProductAttention, name="att", **fields))


def normal(seed, *shape):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def test_vectors_are_rounded_to_half_a_step_of_their_own_scale():
    x = normal(0, B, T, H) * jnp.array([1e-6, 1.0, 1e6, 3.0, 0.0])[None, :, None]
    values, scale = quantize_vectors(x)
    assert values.dtype == jnp.int8
    assert scale.shape == (B, T, 1)
    back = dequantize_vectors(values, scale, jnp.float32)
    largest = np.abs(x).max(-1, keepdims=True)
    assert np.all(np.abs(back - x) <= largest / 127 * 0.5001)
    np.testing.assert_array_equal(back[:, 4], 0.0)


TOLERANCES = {jnp.bfloat16: 2e-2, jnp.int8: 2e-2, "float32": 2e-5}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["bfloat16", "int8", "float32"])
@pytest.mark.parametrize("dconv", [False, True])
def test_steps_on_a_narrow_cache_are_near_the_full_pass(dtype, dconv):
    """The tolerance of a narrow cache is that of its numbers, of 8 bits each."""
    layer = build(decode_cache_dtype=dtype, use_rotary_position_emb=True, dconv_qkv=dconv)
    x, mask = normal(1, B, T, D), attentions.causal_mask(normal(1, B, T, D))
    variables = layer.init(jax.random.PRNGKey(0), x, x, x, mask)
    full, _ = layer.apply(variables, x, x, x, mask)
    zeros = jnp.zeros_like(x)
    _, cache = layer.apply(variables, zeros, zeros, zeros, mask, mutable=["decoder_cache"])
    states = cache["decoder_cache"]
    assert states["key_state"].dtype == jnp.dtype(dtype)
    assert ("key_state_scale" in states) == (jnp.dtype(dtype) == jnp.int8)

    @jax.jit
    def step(cache, t):
        out, cache = layer.apply(
            {**variables, **cache},
            jnp.take(x, t, axis=1),
            atten_mask=jnp.take(mask, t, axis=2),
            time_step=t,
            segment_pos=None,
            method="extend_step",
            mutable=["decoder_cache"],
        )
        return cache, out

    for t in range(T):
        cache, out = step(cache, t)
        tolerance = TOLERANCES[dtype]
        np.testing.assert_allclose(out, full[:, t], rtol=tolerance, atol=tolerance)
    for name, state in cache["decoder_cache"].items():
        assert state.dtype == states[name].dtype


def test_a_transformation_reaches_the_scales_too():
    layer = build(decode_cache_dtype=jnp.int8)
    x, mask = normal(1, B, T, D), attentions.causal_mask(normal(1, B, T, D))
    variables = layer.init(jax.random.PRNGKey(0), x, x, x, mask)
    _, cache = layer.apply(variables, x, x, x, mask, mutable=["decoder_cache"])
    longer = lambda state, batch_dim, time_dim: jnp.concatenate([state, state], time_dim)  # noqa: E731
    _, cache = layer.apply(
        {**variables, **cache}, longer, method="transform_decode_state", mutable=["decoder_cache"]
    )
    shapes = {name: state.shape for name, state in cache["decoder_cache"].items()}
    assert shapes == {
        "key_state": (B, 2 * T, N, H),
        "key_state_scale": (B, 2 * T, N, 1),
        "value_state": (B, 2 * T, N, H),
        "value_state_scale": (B, 2 * T, N, 1),
    }


@pytest.mark.optimized
def test_a_step_is_written_in_place():
    """A donated cache is the one that is written: no copy of it is left in the program."""
    layer = build(decode_cache_dtype=jnp.int8)
    x, mask = normal(1, B, T, D), attentions.causal_mask(normal(1, B, T, D))
    variables = layer.init(jax.random.PRNGKey(0), x, x, x, mask)
    _, cache = layer.apply(variables, x, x, x, mask, mutable=["decoder_cache"])

    def step(cache, t):
        return layer.apply(
            {**variables, **cache},
            x[:, 0],
            atten_mask=mask[:, :, -1],
            time_step=t,
            segment_pos=None,
            method="extend_step",
            mutable=["decoder_cache"],
        )

    compiled = jax.jit(step, donate_argnums=0).lower(cache, jnp.int32(2)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in jax.tree.leaves(cache))


@pytest.mark.parametrize("dtype", [jnp.int16, jnp.bool], ids=["int16", "bool"])
def test_other_dtypes_are_refused(dtype):
    x, mask = normal(1, B, T, D), attentions.causal_mask(normal(1, B, T, D))
    message = "'att': decode_cache_dtype is .*, expected None, a floating dtype"
    with pytest.raises(ValueError, match=message):
        build(decode_cache_dtype=dtype).init(jax.random.PRNGKey(0), x, x, x, mask)

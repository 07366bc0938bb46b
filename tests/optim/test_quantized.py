import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from praxis import optimizers
from praxis.optim.rounding import stochastic_round

FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@pytest.mark.parametrize(("dtype", "levels"), [(jnp.int8, 127), (jnp.int16, 32767)])
def test_quantized_columns_have_a_scale_each(dtype, levels):
    x = np.random.default_rng(0).standard_normal((7, 3)) * [1.0, 100.0, 0.0]
    quantized, bucket = optimizers.to_quantized(jnp.float32(x), dtype)
    scale = np.abs(x).max(0) / levels
    np.testing.assert_allclose(bucket, scale, rtol=2e-6)
    assert quantized.dtype == dtype
    assert np.abs(quantized).max(0).tolist() == [levels, levels, 0]
    back = optimizers.to_float(quantized, bucket)
    assert (np.abs(back - x) <= 0.5001 * scale).all()


@settings(deadline=None, max_examples=20)
@given(hnp.arrays(np.float32, (3, 2), elements=FLOATS))
def test_quantizing_what_is_quantized_changes_nothing(x):
    quantized, bucket = optimizers.to_quantized(jnp.asarray(x), jnp.int8)
    again, _ = optimizers.to_quantized(optimizers.to_float(quantized, bucket), jnp.int8)
    np.testing.assert_array_equal(quantized, again)


@pytest.mark.parametrize(("shape", "dtype"), [((), jnp.int8), ((3,), jnp.int32), ((3,), "float32")])
def test_what_cannot_be_quantized_is_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"expected rank 1 or more and int8 or int16"):
        optimizers.to_quantized(jnp.zeros(shape), dtype)


def test_decay_rates():
    """Both are 0 at the first update; "adam" is the one that corrects Adam's moments."""
    for count in (0, 1, 7):
        adam = 0.98 * (1 - 0.98**count) / (1 - 0.98 ** (count + 1))
        np.testing.assert_allclose(
            optimizers.adafactor_decay_rate_adam(0.98, count), adam, rtol=2e-5, atol=1e-7
        )
        np.testing.assert_allclose(
            optimizers.adafactor_decay_rate_pow(0.8, count), 1 - (count + 1) ** -0.8, rtol=2e-5
        )


def test_stochastic_rounding_is_right_on_average():
    """Results are the two neighbours in bfloat16, and their mean is the value."""
    value, neighbours = 1.001, {1.0, 1.0078125}
    for x, sign in ((value, 1), (-value, -1)):
        rounded = np.asarray(stochastic_round(jax.random.key(0), jnp.full([40_000], x)), np.float32)
        assert set((sign * rounded).tolist()) == neighbours
        # A draw has a standard deviation of 0.0026, the mean of 40000 one of 1.3e-5.
        np.testing.assert_allclose(rounded.mean(), x, atol=6e-5)


def test_stochastic_rounding_keeps_what_needs_no_rounding():
    kept = jnp.asarray([0.0, -0.0, 1.5, -2.0, jnp.inf, -jnp.inf, jnp.nan])
    rounded = stochastic_round(jax.random.key(1), kept)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded.astype(jnp.float32), kept)


def test_bfloat16_moments_follow_float32_where_the_nearest_would_stay():
    """A second moment that falls by 1/1000 of itself a step is below half a step of bfloat16."""
    tree = {"w": jnp.full([2048], 1.0)}
    states = {}
    for dtype in (None, jnp.bfloat16):
        tx = optimizers.sharded_adam(lambda _: 0.1, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0, True, dtype)
        state = tx.init(tree)
        state.update(count=jnp.int32(100_000), v={"w": jnp.ones_like(state.v["w"])})
        step = jax.jit(tx.update)
        for _ in range(100):
            _, state = step({"w": jnp.full([2048], 0.1)}, state)
        states[dtype] = state
    assert states[jnp.bfloat16].m["w"].dtype == jnp.bfloat16
    expected = float(states[None].v["w"][0])
    assert expected < 0.92
    np.testing.assert_allclose(
        states[jnp.bfloat16].v["w"].astype(jnp.float32).mean(), expected, rtol=2e-3
    )
    nearest = jnp.bfloat16(1.0)
    assert jnp.bfloat16(0.999 * jnp.float32(nearest) + 0.001 * 0.01) == nearest

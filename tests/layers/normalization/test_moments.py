"""Mean and variance over the positions that are not padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer
from praxis.layers.normalization.moments import compute_moments

X = np.random.default_rng(0).standard_normal([2, 5, 3])
PADDINGS = np.asarray([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], np.float64)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("dims", [(0, 1), (1,), (0, 1, 2), (-1, 0)])
def test_without_paddings_they_are_those_of_numpy(dims, keepdims):
    mean, variance = compute_moments(jnp.float32(X), None, dims, keepdims=keepdims)
    assert_close(mean, X.mean(dims, keepdims=keepdims))
    assert_close(variance, X.var(dims, keepdims=keepdims))


@pytest.mark.parametrize("dims", [(0, 1), (1,), (0, 1, 2), (1, 2)])
def test_paddings_stay_out(dims):
    padded = np.where(PADDINGS[..., None] > 0, 100.0, X)
    masked = np.ma.array(X, mask=np.broadcast_to(PADDINGS[..., None] > 0, X.shape))
    mean, variance = compute_moments(jnp.float32(padded), jnp.float32(PADDINGS)[..., None], dims)
    assert_close(mean, masked.mean(dims))
    assert_close(variance, masked.var(dims))


def test_all_padded_gives_zeros():
    mean, variance = compute_moments(jnp.float32(X), jnp.ones([2, 5, 1]), (0, 1))
    np.testing.assert_array_equal(mean, np.zeros(3))
    np.testing.assert_array_equal(variance, np.zeros(3))


@pytest.mark.parametrize("padded", [False, True])
def test_cumulative_moments_see_the_past_only(padded):
    paddings = PADDINGS if padded else np.zeros_like(PADDINGS)
    mean, variance = compute_moments(
        jnp.float32(X),
        jnp.float32(paddings)[..., None] if padded else None,
        (2,),
        cumulative_axis=1,
    )
    for b in range(2):
        total = squares = count = 0.0
        for t in range(5):
            keep = 1 - paddings[b, t]
            total += keep * X[b, t].sum()
            count += keep * 3
            squares += keep * ((X[b, t] - total / count) ** 2).sum()
            assert_close(mean[b, t], total / count)
            assert_close(variance[b, t], squares / count)


def test_low_precision_inputs_are_summed_in_float32():
    x = jnp.full([4096, 1], 1.0078125, jnp.bfloat16)
    mean, variance = compute_moments(x, None, (0,))
    assert mean.dtype == jnp.float32
    assert_close(mean, [1.0078125])
    assert_close(variance, [0.0])


@pytest.mark.parametrize(("sync", "axes"), [(True, (0, 1)), (False, (1,))])
def test_replicas_share_their_moments_unless_told_otherwise(sync, axes):
    def moments(x):
        return compute_moments(x, None, (0,), sync_replicas=sync)

    replicas = jax.vmap(moments, axis_name=base_layer.PMAP_PARALLEL_AXIS_NAME)
    mean, variance = replicas(jnp.float32(X))
    assert_close(mean, np.broadcast_to(X.mean(axes), [2, 3]))
    assert_close(variance, np.broadcast_to(X.var(axes), [2, 3]))


def test_paddings_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"padding has shape \(2, 5\), inputs .* \(2, 5, 3\)"):
        compute_moments(jnp.float32(X), jnp.float32(PADDINGS), (0, 1))

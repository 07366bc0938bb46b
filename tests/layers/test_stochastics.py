"""Dropout and dropped residual branches: statistics, masks, modes and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import stochastics


def run(layer, *args, seed=0, do_eval=False):
    context = base_layer.JaxContext.HParams(do_eval=do_eval)
    with base_layer.JaxContext.new_context(hparams=context):
        return layer.apply({}, *args, rngs={"random": jax.random.PRNGKey(seed)})


def dropout(**fields):
    return pax_fiddle.build(pax_fiddle.Config(stochastics.Dropout, name="drop", **fields))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("keep_prob", [0.8, 0.995, 0.999])
def test_keeps_the_mean_and_the_share(dtype, keep_prob):
    """Low-precision inputs too: the random numbers do not have their dtype."""
    y = np.asarray(run(dropout(keep_prob=keep_prob), jnp.ones([500, 400], dtype)), np.float64)
    deviation = np.sqrt(keep_prob * (1 - keep_prob) / y.size)
    assert abs(np.mean(y != 0) - keep_prob) < 5 * deviation
    kept = np.asarray(jnp.asarray(1, dtype) / keep_prob, np.float64)
    np.testing.assert_array_equal(y[y != 0], kept)


def test_other_keys_drop_other_elements():
    layer = dropout(keep_prob=0.5)
    x = jnp.ones([64])
    np.testing.assert_array_equal(run(layer, x), run(layer, x))
    assert np.any(run(layer, x) != run(layer, x, seed=1))


@pytest.mark.parametrize(
    "fields", [{"noise_shape": [10, 6, 1]}, {"noise_shape_broadcast_dims": [2]}]
)
def test_shared_axes_share_their_fate(fields):
    y = np.asarray(run(dropout(keep_prob=0.6, **fields), jnp.ones([10, 6, 8])))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))
    assert 0 < np.mean(y[:, :, 0] == 0) < 1


def test_transpose_qk_swaps_the_last_two_axes():
    x = jnp.ones([2, 3, 5, 5])
    plain = run(dropout(keep_prob=0.5), x)
    swapped = run(dropout(keep_prob=0.5, transpose_qk=True), x)
    np.testing.assert_array_equal(swapped, jnp.swapaxes(plain, 2, 3))


@pytest.mark.parametrize(("at_eval", "dropped"), [(False, False), (True, True)])
def test_evaluation_drops_only_if_asked(at_eval, dropped):
    y = run(dropout(keep_prob=0.5, dropout_at_eval=at_eval), jnp.ones([64]), do_eval=True)
    assert bool(jnp.any(y == 0)) == dropped


def test_keeping_everything_needs_no_random_stream():
    x = jnp.ones([3])
    assert dropout(keep_prob=1.0).apply({}, x) is x


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_prob": 0.0}, "keep_prob is 0.0, expected the probability of keeping"),
        ({"keep_prob": 1.5}, "keep_prob is 1.5"),
        (
            {"keep_prob": 0.5, "noise_shape_broadcast_dims": [2]},
            r"noise_shape_broadcast_dims has axis 2, expected axes below 2",
        ),
        (
            {"keep_prob": 0.5, "noise_shape": [3, 4]},
            r"noise_shape = \(3, 4\) does not broadcast to the inputs, of shape \(2, 3\)",
        ),
    ],
)
def test_dropout_errors_name_the_layer_and_the_field(fields, message):
    with pytest.raises(ValueError, match=f"Dropout 'drop': {message}"):
        run(dropout(**fields), jnp.ones([2, 3]))


def residual(**fields):
    return pax_fiddle.build(pax_fiddle.Config(stochastics.StochasticResidual, name="add", **fields))


def test_residual_branches_survive_whole():
    layer = residual(residual_weight=0.5, survival_prob=0.6)
    x, branch = jnp.full([200, 3], 7.0), jnp.full([200, 3], 3.0)
    added = np.asarray(run(layer, x, branch) - x)
    kept = added[:, 0] != 0
    assert 0.4 < np.mean(kept) < 0.8
    np.testing.assert_allclose(added[kept], 0.5 * 3 / 0.6, rtol=2e-5)
    np.testing.assert_array_equal(added[~kept], 0)


def test_residual_in_evaluation_is_a_weighted_sum():
    layer = residual(residual_weight=0.5, survival_prob=0.6)
    y = run(layer, jnp.full([2, 3], 7.0), jnp.full([2, 3], 3.0), do_eval=True)
    np.testing.assert_allclose(y, np.full([2, 3], 8.5))


@pytest.mark.parametrize(
    ("fields", "width", "message"),
    [
        ({"survival_prob": 0.0}, 3, "survival_prob is 0.0, expected the probability"),
        ({}, 5, r"inputs have shape \(2, 3\) and residual has shape \(2, 5\)"),
    ],
)
def test_residual_errors_name_the_layer(fields, width, message):
    with pytest.raises(ValueError, match=f"StochasticResidual 'add': {message}"):
        run(residual(**fields), jnp.ones([2, 3]), jnp.ones([2, width]))

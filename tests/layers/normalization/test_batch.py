"""BatchNorm: batch moments, moving averages, paddings and modes."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.normalizations import BatchNorm

RNG = np.random.default_rng(0)
X = RNG.standard_normal([2, 5, 3]) * 2 + 1
PADDINGS = np.asarray([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], np.float64)
BETA, GAMMA, MOVING_MEAN = RNG.standard_normal([3, 3])
MOVING_VARIANCE = np.asarray([0.5, 1.5, 2.5], np.float64)
VARIABLES = {
    "params": {"beta": jnp.float32(BETA), "gamma": jnp.float32(GAMMA)},
    "non_trainable": {
        "moving_mean": jnp.float32(MOVING_MEAN),
        "moving_variance": jnp.float32(MOVING_VARIANCE),
    },
}


def build(**fields):
    return pax_fiddle.build(pax_fiddle.Config(BatchNorm, name="norm", dim=3, decay=0.8, **fields))


def run(layer, *args, do_eval=False, variables=VARIABLES):
    context = base_layer.JaxContext.HParams(do_eval=do_eval)
    with base_layer.JaxContext.new_context(hparams=context):
        return layer.apply(variables, *args, mutable=["non_trainable"])


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def normalized(x, mean, variance):
    return (x - mean) / np.sqrt(variance + 0.001)


@pytest.mark.parametrize("padded", [False, True])
def test_training_normalizes_by_the_batch_and_moves_the_averages(padded):
    keep = 1 - PADDINGS if padded else np.ones_like(PADDINGS)
    frames = X[keep > 0]
    y, updated = run(build(), jnp.float32(X), jnp.float32(PADDINGS) if padded else None)
    expected = normalized(X, frames.mean(0), frames.var(0)) * (1 + GAMMA) + BETA
    assert_close(y, expected * keep[..., None])
    moved = updated["non_trainable"]
    assert_close(moved["moving_mean"], 0.8 * MOVING_MEAN + 0.2 * frames.mean(0))
    assert_close(moved["moving_variance"], 0.8 * MOVING_VARIANCE + 0.2 * frames.var(0))


def test_two_calls_move_the_averages_twice():
    layer = build()
    variables = VARIABLES
    for _ in range(2):
        _, updated = run(layer, jnp.float32(X), variables=variables)
        variables = {**VARIABLES, **updated}
    mean = X.mean((0, 1))
    expected = 0.64 * MOVING_MEAN + 0.36 * mean
    assert_close(variables["non_trainable"]["moving_mean"], expected)


@pytest.mark.parametrize(("fields", "do_eval"), [({}, True), ({"force_eval_mode": True}, False)])
def test_evaluation_takes_the_averages_and_leaves_them(fields, do_eval):
    y, updated = run(build(**fields), jnp.float32(X), do_eval=do_eval)
    assert_close(y, normalized(X, MOVING_MEAN, MOVING_VARIANCE) * (1 + GAMMA) + BETA)
    after = {**VARIABLES, **updated}["non_trainable"]
    np.testing.assert_array_equal(after["moving_mean"], np.float32(MOVING_MEAN))
    np.testing.assert_array_equal(after["moving_variance"], np.float32(MOVING_VARIANCE))


@pytest.mark.parametrize("do_eval", [False, True])
def test_moving_averages_in_training_leave_out_beta_and_gamma(do_eval):
    y, _ = run(build(use_moving_avg_in_training=True), jnp.float32(X), do_eval=do_eval)
    share = 0.0 if do_eval else 0.2
    mean = (1 - share) * MOVING_MEAN + share * X.mean((0, 1))
    variance = (1 - share) * MOVING_VARIANCE + share * X.var((0, 1))
    assert_close(y, normalized(X, mean, variance))


def test_padded_outputs_stay_if_asked():
    y, _ = run(build(set_padded_output_to_zero=False), jnp.float32(X), jnp.float32(PADDINGS))
    assert np.all(np.asarray(y)[PADDINGS > 0] != 0)


def test_summaries_need_a_high_verbosity():
    names = {"mean_scalar", "variance_scalar", "moving_mean_scalar", "moving_variance_scalar"}
    for verbosity, expected in [(3, set()), (4, names)]:
        context = base_layer.JaxContext.HParams(summary_verbosity=verbosity)
        with base_layer.JaxContext.new_context(hparams=context):
            _, updated = build().apply(VARIABLES, jnp.float32(X), mutable=["summaries"])
        assert set(updated.get("summaries", {})) == expected


def test_bfloat16_statistics_are_float32():
    layer = build(fprop_dtype=jnp.bfloat16)
    y, updated = run(layer, jnp.asarray(X, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert updated["non_trainable"]["moving_mean"].dtype == jnp.float32


def test_averages_are_synchronized_over_replicas():
    meta = build().abstract_init_with_metadata(jnp.float32(X))["non_trainable"]
    for name in ("moving_mean", "moving_variance"):
        assert base_layer.var_requires_mean_sync(meta[name])


@pytest.mark.parametrize(
    ("inputs", "paddings", "message"),
    [
        ((2, 5, 7), None, r"inputs have shape \(2, 5, 7\), expected .* D = dim = 3"),
        ((2, 5, 3), (5, 2), r"paddings have shape \(5, 2\), inputs have shape \(2, 5, 3\)"),
    ],
)
def test_errors_name_the_layer_and_the_shapes(inputs, paddings, message):
    with pytest.raises(ValueError, match=f"BatchNorm 'norm': {message}"):
        run(build(), jnp.ones(inputs), None if paddings is None else jnp.zeros(paddings))

"""Private gradients (behaviour 73): against the plain one, NumPy, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import sgf, trainer_lib
from praxis import base_layer, pax_fiddle, py_utils

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 3)).astype(np.float32)
Y = X.sum(-1).astype(np.float32)
VARIABLES = {"w": jnp.asarray([0.5, -1.0, 2.0]), "b": jnp.float32(0.3)}
BOUND = 3.9  # between the norms of the examples, which go from 2.7 to 11.9


def loss_fn(variables, others, key):
    """Mean squared error; the loss weight is the number of examples."""
    x, y = others[1]
    scale = others[0]["scale"]
    error = (x @ variables["w"] + variables["b"]) * scale - y
    jitter = 0.0 * jax.random.normal(key)
    loss = jnp.mean(jnp.square(error)) + jitter
    return loss, sgf.GradAuxInfo({"error": jnp.mean(error)}, jnp.float32(x.shape[0]))


def build(cls, **fields):
    return pax_fiddle.instantiate(pax_fiddle.Config(cls, **{"l2_norm_clip": BOUND} | fields))


def run(gradient, key=KEY, fn=loss_fn):
    others = ({"scale": jnp.float32(1.0)}, (jnp.asarray(X), jnp.asarray(Y)))
    return jax.jit(lambda v, k: gradient.grad_fn(fn, v, others, k))(VARIABLES, key)


def example_gradients():
    """[6, 4]: of w and b for each example, float64."""
    error = X.astype(np.float64) @ np.float64(VARIABLES["w"]) + float(VARIABLES["b"]) - Y
    return 2 * error[:, None] * np.concatenate([X, np.ones([6, 1])], axis=1)


def clipped(grads, bounds):
    norms = np.linalg.norm(grads, axis=-1, keepdims=True)
    return grads * np.minimum(1, bounds / norms)


def as_vector(grads):
    return np.concatenate([np.asarray(grads["w"]), [float(grads["b"])]])


def close(actual, expected):
    np.testing.assert_allclose(as_vector(actual), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "cls",
    [
        sgf.DpSgdStochasticGradient,
        sgf.MicrobatchDpSgdStochasticGradient,
        sgf.AugMulDpSgdStochasticGradient,
        sgf.PerLayerDpSgdStochasticGradient,
        sgf.GhostClippingDpSgdStochasticGradient,
    ],
)
def test_a_huge_bound_without_noise_gives_the_plain_gradient(cls):
    sizes = {"microbatch_size": 2} if issubclass(cls, sgf.MicrobatchDpSgdStochasticGradient) else {}
    (loss, aux), grads = run(build(cls, l2_norm_clip=1e6, **sizes))
    (plain_loss, plain_aux), plain = run(pax_fiddle.Config(sgf.StandardGradient).Instantiate())
    close(grads, as_vector(plain))
    np.testing.assert_allclose(loss, plain_loss, rtol=2e-5)
    np.testing.assert_allclose(aux.aux_info["error"], plain_aux.aux_info["error"], rtol=2e-5)
    assert float(aux.dp_aux_info["frac_clipped"]) == 0


def test_small_bounds_against_numpy():
    grads = example_gradients()
    expected = clipped(grads, BOUND).mean(0)
    with base_layer.JaxContext.new_context():
        dp = build(sgf.DpSgdStochasticGradient)
        others = ({"scale": jnp.float32(1.0)}, (jnp.asarray(X), jnp.asarray(Y)))
        (_, aux), actual = dp.grad_fn(loss_fn, VARIABLES, others, KEY)
        summaries = base_layer.all_global_summaries()
    close(actual, expected)
    fraction = np.mean(np.linalg.norm(grads, axis=1) > BOUND)
    assert 0 < fraction < 1
    np.testing.assert_allclose(aux.dp_aux_info["frac_clipped"], fraction, rtol=1e-6)
    np.testing.assert_allclose(summaries["dp_metrics/frac_clipped_scalar"], fraction, rtol=1e-6)


def test_the_normalized_mean_is_in_units_of_the_bound():
    _, actual = run(build(sgf.DpSgdStochasticGradient, normalize_gradients=True))
    close(actual, clipped(example_gradients(), BOUND).mean(0) / BOUND)


@pytest.mark.parametrize("inner", [1, 2, 3, 6])
def test_inner_batches_agree_also_with_noise_and_random_losses(inner):
    def random_loss(variables, others, key):
        loss, aux = loss_fn(variables, others, key)
        return loss * jax.random.uniform(key), aux

    fields = {"noise_multiplier": 0.5}
    (loss, _), all_at_once = run(build(sgf.DpSgdStochasticGradient, **fields), fn=random_loss)
    (inner_loss, _), in_turns = run(
        build(sgf.DpSgdStochasticGradient, inner_batch_size=inner, **fields), fn=random_loss
    )
    close(in_turns, as_vector(all_at_once))
    np.testing.assert_allclose(inner_loss, loss, rtol=2e-5)


def test_ghost_clipping_agrees_also_with_scaled_bounds():
    for fields in ({}, {"use_loss_weight_scaling": True, "normalize_gradients": True}):
        _, expected = run(build(sgf.DpSgdStochasticGradient, **fields))
        (_, aux), actual = run(build(sgf.GhostClippingDpSgdStochasticGradient, **fields))
        close(actual, as_vector(expected))
        assert float(aux.dp_aux_info["frac_clipped"]) > 0


def test_groups_are_averaged_before_clipping():
    groups = example_gradients().reshape(3, 2, 4).mean(1)
    _, actual = run(
        build(sgf.MicrobatchDpSgdStochasticGradient, microbatch_size=2, inner_batch_size=2)
    )
    close(actual, clipped(groups, BOUND).mean(0))


def test_copies_of_an_example_are_clipped_as_one():
    """Without augmentation all copies are equal: the result is that of single examples."""
    _, actual = run(build(sgf.AugMulDpSgdStochasticGradient, microbatch_size=3))
    close(actual, clipped(example_gradients(), BOUND).mean(0))


@pytest.mark.parametrize("uniform", [True, False])
def test_each_layer_has_its_own_bound(uniform):
    grads = example_gradients()
    shares = np.sqrt([1 / 2, 1 / 2] if uniform else [3 / 4, 1 / 4])
    expected = np.concatenate(
        [clipped(grads[:, :3], BOUND * shares[0]), clipped(grads[:, 3:], BOUND * shares[1])], axis=1
    ).mean(0)
    (_, aux), actual = run(build(sgf.PerLayerDpSgdStochasticGradient, use_uniform=uniform))
    close(actual, expected)
    fractions = [
        np.mean(np.linalg.norm(part, axis=1) > BOUND * share)
        for part, share in zip((grads[:, :3], grads[:, 3:]), shares, strict=True)
    ]
    for name, fraction in zip("wb", fractions, strict=True):
        np.testing.assert_allclose(aux.dp_aux_info[f"frac_clipped/{name}"], fraction, rtol=1e-6)
    np.testing.assert_allclose(aux.dp_aux_info["frac_clipped"], np.mean(fractions), rtol=1e-6)


@pytest.mark.parametrize(
    ("cls", "fields", "stddev"),
    [
        (sgf.DpSgdStochasticGradient, {}, 4.0 * BOUND / 6),
        (sgf.DpSgdStochasticGradient, {"normalize_gradients": True}, 4.0 / 6),
        (sgf.MicrobatchDpSgdStochasticGradient, {"microbatch_size": 3}, 4.0 * BOUND / 2),
        (sgf.GhostClippingDpSgdStochasticGradient, {}, 4.0 * BOUND / 6),
    ],
    ids=["plain", "normalized", "groups", "ghost"],
)
def test_noise_has_its_deviation_and_leaves_differ(cls, fields, stddev):
    quiet, noisy = build(cls, **fields), build(cls, noise_multiplier=4.0, **fields)
    others = ({"scale": jnp.float32(1.0)}, (jnp.asarray(X), jnp.asarray(Y)))
    keys = jax.random.split(KEY, 2000)
    _, mean = quiet.grad_fn(loss_fn, VARIABLES, others, KEY)
    _, draws = jax.jit(
        jax.vmap(lambda k: noisy.grad_fn(loss_fn, VARIABLES, others, k))
    )(keys)  # fmt: skip
    draws = np.concatenate([draws["w"], draws["b"][:, None]], axis=1)
    noise = draws - as_vector(mean)
    # 2000 draws: the deviation is known to 1.6 percent (one sigma).
    np.testing.assert_allclose(noise.std(0), stddev, rtol=0.08)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(4), atol=0.1)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (sgf.DpSgdStochasticGradient, {"l2_norm_clip": 0.0}, "l2_norm_clip is 0.0, expected a"),
        (sgf.PercoreClippedDpSgdGradient, {"l2_norm_clip": None}, "l2_norm_clip is None"),
        (
            sgf.DpSgdStochasticGradient,
            {"use_loss_weight_scaling": True, "noise_multiplier": 0.5},
            "use_loss_weight_scaling is True with noise_multiplier = 0.5",
        ),
        (
            sgf.GhostClippingDpSgdStochasticGradient,
            {"inner_batch_size": 2},
            "inner_batch_size is 2, expected None",
        ),
    ],
    ids=["bound", "percore", "scaled", "ghost"],
)
def test_wrong_settings_are_refused(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        build(cls, **fields)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (
            sgf.DpSgdStochasticGradient,
            {"inner_batch_size": 4},
            "inner_batch_size = 4 does not divide the batch of 6",
        ),
        (
            sgf.MicrobatchDpSgdStochasticGradient,
            {"microbatch_size": 4},
            "microbatch_size = 4 does not divide the batch of 6",
        ),
        (sgf.PercoreClippedDpSgdGradient, {}, "works with pmap only.*microbatch_size"),
    ],
    ids=["inner", "groups", "percore"],
)
def test_what_does_not_fit_is_refused(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        run(build(cls, **fields))


def test_a_training_step_keeps_one_output_for_each_example():
    config = toy_experiment.Toy().task()
    config.model.keep_prob = 1.0
    config.train.learner.stochastic_gradient = pax_fiddle.Config(
        sgf.DpSgdStochasticGradient, l2_norm_clip=1e6
    )
    private = pax_fiddle.instantiate(config)
    config.train.learner.stochastic_gradient = None
    plain = pax_fiddle.instantiate(config)
    batch = py_utils.NestedMap(x=jnp.asarray(X), y=jnp.asarray(Y))
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    state, _ = trainer_lib.initialize_model_state(plain, KEY, specs)

    def step(task):
        return jax.jit(
            lambda s, b: trainer_lib.train_step_single_learner(task, s, KEY, b)
        )(state, batch)  # fmt: skip

    (new, out), (expected, plain_out) = step(private), step(plain)
    for name in "wb":
        np.testing.assert_allclose(
            new.mdl_vars["params"][name], expected.mdl_vars["params"][name], rtol=2e-5, atol=2e-6
        )
    np.testing.assert_allclose(out.loss, plain_out.loss, rtol=2e-5)
    np.testing.assert_allclose(
        out.per_example_out["error"], plain_out.per_example_out["error"], rtol=2e-5, atol=2e-6
    )
    np.testing.assert_allclose(out.weighted_scalars["mae"][0], plain_out.weighted_scalars["mae"][0])
    assert float(out.summary_tensors["dp_metrics/frac_clipped_scalar"]) == 0

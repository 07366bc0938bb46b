from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizer_cases import build, trajectory

from praxis import optimizers
from praxis.py_utils import NestedMap

LR = 0.1


def problem(dtype=jnp.float32, steps=5) -> Any:
    rng = np.random.default_rng(0)

    def tree():
        return NestedMap(
            w=jnp.asarray(rng.standard_normal([3, 5]), dtype),
            b=jnp.asarray(rng.standard_normal([7]), dtype),
        )

    return tree(), [tree() for _ in range(steps)]


PAIRS = {
    "sgd": (optimizers.Sgd, {}, optax.sgd(LR)),
    "momentum": (optimizers.ShardedSgd, {"momentum": 0.9}, optax.sgd(LR, 0.9)),
    "nesterov": (
        optimizers.Sgd,
        {"momentum": 0.9, "nesterov": True},
        optax.sgd(LR, 0.9, nesterov=True),
    ),
    "adam": (
        optimizers.Adam,
        {"clip_threshold": 0.0, "beta2": 0.98, "epsilon_root": 1e-3},
        optax.adam(LR, b2=0.98, eps=1e-6, eps_root=1e-3),
    ),
    "plain_adam": (optimizers.Adam, {"sharded_adam": False}, optax.adam(LR, eps=1e-6)),
    "adamw": (
        optimizers.Adam,
        {"clip_threshold": 0.0, "decoupled_weight_decay": 0.3},
        optax.adamw(LR, eps=1e-6, weight_decay=0.3),
    ),
    "clipped_adam": (
        optimizers.Adam,
        {"clip_threshold": 0.4},
        optax.chain(
            optax.scale_by_adam(eps=1e-6),
            optax.clip_by_block_rms(0.4),
            optax.scale_by_learning_rate(LR),
        ),
    ),
    "lion": (optimizers.Lion, {}, optax.lion(LR, mu_dtype=jnp.bfloat16, weight_decay=0.0)),
    "clipped_lion_with_decay": (
        optimizers.Lion,
        {"weight_decay": 0.2, "clip_threshold": 0.5, "m_dtype": jnp.float32},
        optax.chain(
            optax.scale_by_lion(),
            optax.clip_by_block_rms(0.5),
            optax.add_decayed_weights(0.2),
            optax.scale_by_learning_rate(LR),
        ),
    ),
    "adagrad": (optimizers.Adagrad, {}, optax.adagrad(LR, 0.1, 1e-10)),
    "sharded_adagrad": (optimizers.ShardedAdagrad, {}, optax.adagrad(LR, 1e-12, 1e-12)),
    "lamb": (optimizers.Lamb, {"weight_decay": 0.1}, optax.lamb(LR, weight_decay=0.1)),
    "lars": (optimizers.Lars, {"momentum": 0.8}, optax.lars(LR, momentum=0.8)),
    "adafactor": (
        optimizers.Adafactor,
        {"min_dim_size_to_factor": 3, "momentum": 0.9},
        optax.adafactor(LR, min_dim_size_to_factor=3, momentum=0.9),
    ),
}


@pytest.mark.parametrize(("cls", "fields", "theirs"), PAIRS.values(), ids=PAIRS.keys())
def test_equals_optax(cls, fields, theirs):
    params, grads = problem()
    ours = trajectory(build(cls, **fields).get_grad_transformation(), params, grads)
    # Moments corrected step by step are rounded in another order: 2e-5 of values of about 1.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
        ours,
        trajectory(theirs, params, grads),
    )


def test_adam_matches_the_paper_in_float64():
    """Algorithm 1 of arXiv:1412.6980, with the RMS limit of the default config."""
    params, grads = problem()
    ours = trajectory(build(optimizers.Adam).get_grad_transformation(), params, grads)[-1].w
    value = np.asarray(params.w, np.float64)
    mean, square = np.zeros_like(value), np.zeros_like(value)
    for count, grad in enumerate(grads, start=1):
        g = np.asarray(grad.w, np.float64)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        update = mean / (1 - 0.9**count) / (np.sqrt(square / (1 - 0.999**count)) + 1e-6)
        value -= LR * update / max(1.0, np.sqrt(np.mean(update**2)))
    np.testing.assert_allclose(ours, value, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("cls", [optimizers.Adam, optimizers.Lion, optimizers.ShardedSgd])
def test_state_keeps_its_types_with_bfloat16_variables(cls):
    params, grads = problem(jnp.bfloat16, steps=2)
    transform = build(cls).get_grad_transformation()
    state = jax.eval_shape(transform.init, params)
    types = jax.tree.map(lambda x: x.dtype, state)
    for grad in grads:
        _, state = jax.eval_shape(transform.update, grad, state, params)
        assert jax.tree.map(lambda x: x.dtype, state) == types


def test_adam_state_holds_corrected_moments_by_name():
    """The names are the paths of checkpoints."""
    params, grads = problem(steps=1)
    transform = build(optimizers.Adam).get_grad_transformation()
    _, state = transform.update(grads[0], transform.init(params), params)
    assert sorted(state[2]) == ["count", "m", "v"]
    np.testing.assert_allclose(state[2].m.w, grads[0].w, rtol=1e-6)
    np.testing.assert_allclose(state[2].v.w, grads[0].w ** 2, rtol=1e-6)


@pytest.mark.parametrize("treat", [True, False])
def test_adam_turns_infinite_gradients_into_nan(treat):
    transform = build(
        optimizers.Adam, clip_threshold=0.0, maybe_inf_to_nan=treat
    ).get_grad_transformation()
    params = NestedMap(w=jnp.zeros([2]))
    grads = NestedMap(w=jnp.asarray([jnp.inf, 1.0]))
    _, state = transform.update(grads, transform.init(params), params)
    assert bool(jnp.isnan(state[2].m.w[0])) is treat
    assert jnp.isfinite(state[2].m.w[1])


@pytest.mark.parametrize(
    ("preset", "betas"), [("HParamsA", (0.9, 0.997)), ("HParamsB", (0.9, 0.98))]
)
def test_adam_presets(preset, betas):
    config = getattr(optimizers.Adam, preset)()
    assert (config.beta1, config.beta2, config.epsilon) == (*betas, 1e-9)


def test_adam_refuses_what_plain_adam_cannot_do():
    with pytest.raises(ValueError, match=r"sharded_adam = False cannot honour .* = 0.5"):
        build(optimizers.Adam, sharded_adam=False, clip_threshold=0.5)


@pytest.mark.parametrize(
    ("cls", "field"),
    [(optimizers.Adam, "weight_decay"), (optimizers.Adafactor, "weight_decay_rate")],
)
def test_deprecated_decay_warns(cls, field):
    with pytest.warns(DeprecationWarning, match=f"{field} is deprecated.*decoupled_weight_decay"):
        build(cls, **{field: 0.1})


def test_missing_params_are_named():
    tree = NestedMap(w=jnp.ones([3]))
    for name, transform in {
        "Adam": optimizers.sharded_adam(lambda _: 1.0, 0.9, 0.9, 1e-6, 0.0, 0.0, 0.1),
        "Lion": optimizers.sharded_lion(lambda _: 1.0, 0.9, 0.9, jnp.float32, 0.0, 0.1),
    }.items():
        with pytest.raises(ValueError, match=f"{name} with weight_decay needs the variables"):
            transform.update(tree, transform.init(tree))


def test_a_subclass_must_bring_a_transformation():
    with pytest.raises(NotImplementedError, match="BaseOptimizer does not implement"):
        build(optimizers.BaseOptimizer).get_grad_transformation()


def test_the_mean_of_more_elements_than_an_int32_counts():
    """Stacked weights of models from 1e12 parameters on; found when one was described."""
    large = jax.ShapeDtypeStruct((3, 2**30), jnp.float32)
    assert jax.eval_shape(optimizers.reduce_mean, large).dtype == jnp.float32


def test_reductions():
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(optimizers.reduce_mean(jnp.float32(x)), x.mean())
    np.testing.assert_allclose(
        optimizers.reduce_rms(jnp.float32(x)), np.sqrt((x**2).mean()), rtol=2e-6
    )

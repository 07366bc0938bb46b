from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizer_cases import ADAFACTOR, build, trajectory

from praxis import base_layer, optimizers
from praxis import optimizer_prefix_vectorization as vectorization
from praxis.optim.factored import factored_dims
from praxis.py_utils import NestedMap

LR = 0.1
POW = {"decay_method": "pow", "decay_pow": 0.8, "quantized_dtype": "float32"}


def problem(shape=(3, 5), steps=4) -> Any:
    rng = np.random.default_rng(0)

    def tree():
        return {
            "w": jnp.float32(rng.standard_normal(shape)),
            "b": jnp.float32(rng.standard_normal(7)),
        }

    return tree(), [tree() for _ in range(steps)]


def raw(**fields) -> Any:
    return optimizers.sharded_adafactor(lambda _: LR, **fields)


def one_step(tree, **fields) -> Any:
    """The update from given variables and gradients."""
    tx = raw(**{**POW, **fields})
    params, grads = tree
    return tx.update(grads, tx.init(params), params)[0]


def test_preset_on_a_scalar():
    """From 0 with gradients 1, 2, 3 at learning rate 1."""
    config = optimizers.ShardedAdafactor.HParamsAdamB()
    assert (config.beta1, config.decay_method, config.decay_adam) == (0.9, "adam", 0.98)
    assert config.quantized_dtype == "int8"
    fields = {name: getattr(config, name) for name in ADAFACTOR}
    tx = build(optimizers.ShardedAdafactor, learning_rate=1.0, **fields).get_grad_transformation()
    grads = [NestedMap(w=jnp.float32(g)) for g in (1, 2, 3)]
    assert trajectory(tx, NestedMap(w=jnp.float32(0)), grads)[-1].w == np.float32(-0.561)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        (
            {"multiply_by_parameter_scale": True, "clip_threshold": None},
            {"multiply_by_parameter_scale": True, "clipping_threshold": None},
        ),
        ({"beta1": 0.9, "weight_decay": 0.3}, {"momentum": 0.9, "weight_decay_rate": 0.3 * LR}),
        ({"factored": False}, {"factored": False}),
    ],
    ids=["plain", "parameter_scale", "momentum_and_decay", "whole"],
)
def test_equals_optax(ours, theirs):
    """`optax.adafactor`, whose decay of weights is not scaled by the learning rate."""
    params, grads = problem()
    theirs = {"multiply_by_parameter_scale": False, "min_dim_size_to_factor": 1, **theirs}
    ours = trajectory(raw(**POW, **ours), params, grads)[-1]
    theirs = trajectory(optax.adafactor(LR, decay_rate=0.8, **theirs), params, grads)[-1]
    for name in params:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=2e-6)


def test_equals_optax_over_the_two_largest_of_three_dims():
    params, grads = problem((5, 2, 3))
    sort = {"sort_factored_second_moment_dims": True, "min_dim_size_to_factor": 3}
    ours = trajectory(raw(**POW, **sort), params, grads)[-1]
    factory = optax.adafactor(
        LR, decay_rate=0.8, min_dim_size_to_factor=3, multiply_by_parameter_scale=False
    )
    np.testing.assert_allclose(ours["w"], trajectory(factory, params, grads)[-1]["w"], rtol=2e-5)


def test_adam_decay_and_momentum_match_the_formulas_in_float64():
    params, grads = problem()
    tx = build(optimizers.ShardedAdafactor, **ADAFACTOR, quantized_dtype="float32")
    ours = trajectory(tx.get_grad_transformation(), params, grads)[-1]["w"]
    value = np.asarray(params["w"], np.float64)
    rows, columns, mean = np.zeros(3), np.zeros(5), np.zeros_like(value)
    for count, grad in enumerate(np.asarray(g["w"], np.float64) for g in grads):
        decay = 0.98 * (1 - 0.98**count) / (1 - 0.98 ** (count + 1))
        rows = decay * rows + (1 - decay) * (grad**2).mean(1)
        columns = decay * columns + (1 - decay) * (grad**2).mean(0)
        update = grad / np.sqrt(np.outer(rows, columns) / rows.mean())
        update /= max(1.0, np.sqrt((update**2).mean()))
        mean = 0.9 * mean + 0.1 * LR * update
        value -= mean
    np.testing.assert_allclose(ours, value, rtol=2e-5, atol=2e-6)


def test_narrow_momentum_is_near_the_wide_one():
    """Steps of int8 are 1/127 of the largest momentum, which is about LR times 1."""
    params, grads = problem(steps=3)
    wide = trajectory(raw(**ADAFACTOR, quantized_dtype="float32"), params, grads)[-1]
    for dtype, tolerance in (("int8", 2e-3), ("int16", 2e-5), ("float16", 2e-4)):
        tx = raw(**ADAFACTOR, quantized_dtype=dtype)
        narrow = trajectory(tx, params, grads)[-1]
        np.testing.assert_allclose(narrow["w"], wide["w"], atol=tolerance)
        _, state = jax.eval_shape(tx.update, grads[0], tx.init(params), params)
        assert state.m["w"].dtype == dtype
        assert state.m_scale["w"].shape == ((5,) if dtype.startswith("int") else (1,))


@pytest.mark.parametrize(
    ("shape", "fields", "expected"),
    [
        ((3,), {}, None),
        ((3, 5), {}, (1, 0)),
        ((2, 7, 3), {}, (2, 1)),
        ((2, 7, 3), {"factored": False}, None),
        ((2, 7, 3), {"sort_dims": True}, (1, 2)),
        ((7, 7, 2), {"sort_dims": True}, (0, 1)),
        ((2, 7, 3), {"sort_dims": True, "min_dim_size_to_factor": 4}, None),
    ],
)
def test_dims_of_factors(shape, fields, expected):
    defaults = {"factored": True, "sort_dims": False, "min_dim_size_to_factor": 1}
    assert factored_dims(shape, **{**defaults, **fields}) == expected


def test_slots_are_laid_out_like_their_variable_without_a_dim():
    variable: Any = base_layer.WeightHParams(
        [3, 5, 7], dtype=jnp.bfloat16, tensor_split_dims_mapping=["data", None, "mdl"]
    )
    spec = raw(**ADAFACTOR).init_partition_spec({"w": variable})
    axes = {
        field: getattr(spec, field)["w"].tensor_split_dims_mapping for field in spec._fields[1:]
    }
    assert axes == {
        "m": ["data", None, "mdl"],
        "m_scale": [None, "mdl"],
        "vr": ["data", None],
        "vc": ["data", "mdl"],
        "v": [-1],
    }
    whole = raw(**POW, factored=False).init_partition_spec({"w": variable})
    assert (whole.v["w"].dtype, whole.m["w"].shape) == (jnp.float32, [1])


def test_layers_of_a_stack_are_factored_apart():
    hparams: Any = {"w": base_layer.WeightHParams([3, 5], dtype=jnp.float32, repeat_prefix=[2])}
    tx: Any = build(optimizers.ShardedAdafactor, **ADAFACTOR).get_grad_transformation(hparams)
    with pytest.raises(ValueError, match=r"repeat_prefix = \[2\].*vectorize_on_repeat_prefix"):
        tx.init_partition_spec(hparams)
    vectorized: Any = vectorization.get_transformations_with_vectorized_repeat_prefix(tx, hparams)
    params = {"w": jax.random.normal(jax.random.key(0), [2, 3, 5])}
    state = vectorized.init(params)
    spec = vectorized.init_partition_spec(hparams)
    assert jax.tree.structure(spec) == jax.tree.structure(state)
    updates, _ = jax.jit(vectorized.update)(params, state, params)
    update = jax.jit(tx.update)
    for layer in range(2):
        own = {"w": params["w"][layer]}
        alone, _ = update(own, tx.init(own), own)
        np.testing.assert_allclose(updates["w"][layer], alone["w"], rtol=2e-5)


def test_weight_decay_by_pattern():
    """The last pattern that matches the path counts; others do not decay."""
    params = {"a": {"w": jnp.ones([3])}, "b": jnp.ones([3]), "c": jnp.ones([3])}
    tree = params, jax.tree.map(jnp.zeros_like, params)
    updates = one_step(tree, weight_decay={"a": 0.5, "a/w": 0.2, "c": 1.0})
    np.testing.assert_allclose(updates["a"]["w"], -LR * 0.2, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], 0.0)
    np.testing.assert_allclose(updates["c"], -LR, rtol=1e-6)


def test_layerwise_adaptation_gives_updates_the_size_of_their_variable():
    params = {"a": jnp.full([3], 5.0), "skipped": jnp.full([3], 5.0), "zero": jnp.zeros([3])}
    tree = params, jax.tree.map(jnp.ones_like, params)
    fields = {"layerwise_adaptation": True, "exclude_from_layerwise_adaptation": ["skip"]}
    updates = one_step(tree, **fields)
    np.testing.assert_allclose(updates["a"], -LR * 5.0, rtol=1e-5)
    np.testing.assert_allclose(updates["skipped"], -LR, rtol=1e-5)
    np.testing.assert_allclose(updates["zero"], -LR, rtol=1e-5)
    still = optimizers.sharded_adafactor(lambda _: 0.0, **POW, layerwise_adaptation=True)
    np.testing.assert_array_equal(still.update(tree[1], still.init(params), params)[0]["a"], 0.0)


def test_infinite_gradients_become_nan():
    tree = {"w": jnp.ones([2])}, {"w": jnp.asarray([jnp.inf, 1.0])}
    assert jnp.isnan(one_step(tree)["w"]).all()
    untreated = one_step(tree, maybe_inf_to_nan=False, clip_threshold=None)["w"]
    np.testing.assert_allclose(untreated[1], -LR, rtol=1e-6)


def test_summaries_of_each_variable():
    params = {"w": jnp.full([2, 2], 4.0)}
    tx = build(
        optimizers.ShardedAdafactor,
        **POW,
        name="main",
        per_var_learning_summary=True,
        multiply_by_parameter_scale=True,
        clip_threshold=0.5,
    )
    transform = tx.get_grad_transformation()
    grads = {"w": jnp.asarray([[0.0, 1.0], [1.0, 1.0]])}
    with base_layer.JaxContext.new_context():
        transform.update(grads, transform.init(params), params)
        found = {k.split("/")[1]: float(v) for k, v in base_layer.all_global_summaries().items()}
        names = list(base_layer.all_global_summaries())
    transform.update(grads, transform.init(params), params)  # none to write to
    assert all(name.startswith("main/") and name.endswith("/w_scalar") for name in names)
    rms = found["sharded_adafactor_clipping_denom"] * 0.5
    np.testing.assert_allclose(found.pop("fraction_zero_grad"), 0.25)
    assert {k.removeprefix("sharded_adafactor_"): v for k, v in found.items()} == pytest.approx(
        {
            "parameter_scale": 4.0,
            "decay_rate": 0.0,
            "update_scale": 0.4,
            "learning": 0.4 * rms,
            "clipping_denom": rms / 0.5,
            "learning_after_clipping": 0.2,
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"decay_method is '', expected 'adam' or 'pow'.*HParamsAdamB"),
        ({"decay_method": "adam"}, r"decay_adam is 0.0, expected above 0"),
        ({"decay_method": "pow"}, r"decay_pow is 0.0, expected above 0"),
        ({**POW, "quantized_dtype": "int32"}, r"quantized_dtype is 'int32', expected 'int8'"),
        (
            {**POW, "weight_decay": 0.1, "respect_skip_lp_regularization": True},
            r"respect_skip_lp_regularization = True demands. Use decoupled_weight_decay",
        ),
    ],
)
def test_impossible_settings_are_refused_when_built(fields, message):
    with pytest.raises(ValueError, match=f"ShardedAdafactor: .*{message}"):
        build(optimizers.ShardedAdafactor, **fields)


def test_missing_params_are_named():
    tree = {"w": jnp.ones([3])}
    tx = raw(**POW)
    with pytest.raises(ValueError, match=r"needs the variables: call update\(updates, state, par"):
        tx.update(tree, tx.init(tree))


def test_users_may_bring_their_own_helper():
    class Doubling(optimizers.ShardedAdafactorHelper):
        def compute_var_and_slot_update(self, *args, **kwargs):
            step = super().compute_var_and_slot_update(*args, **kwargs)
            return step._replace(update=2.0 * step.update)

    params = {"w": jnp.ones([3])}
    tx = optimizers.sharded_adafactor(lambda _: LR, Doubling, **POW)
    np.testing.assert_allclose(
        tx.update(params, tx.init(params), params)[0]["w"], -2 * LR, rtol=1e-6
    )

"""Optimizers that are those of optax under a config: AdamW, Muon, schedule-free, any other one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizer_cases import build, trajectory

from praxis import base_layer, optimizers, pax_fiddle
from praxis import optimizer_prefix_vectorization as vectorization
from praxis.py_utils import BpropMaskedNode

LR = 0.1


def problem(steps=3) -> Any:
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 5), "emb": (7, 3), "query": (3, 2, 5), "b": (5,)}

    def tree():
        return {name: jnp.float32(rng.standard_normal(shape)) for name, shape in shapes.items()}

    return tree(), [tree() for _ in range(steps)]


def muon_axes(params) -> Any:
    axes = optax.contrib.MuonDimensionNumbers
    return dict.fromkeys(params) | {"w": axes(0, 1), "query": axes((0,), (1, 2))}


PAIRS = {
    "adamw": (optimizers.AdamW, {}, optax.adamw(LR)),
    "muon": (
        optimizers.Muon,
        {"matrices": {"emb": None, "query": ([0], [1, 2])}, "consistent_rms": 0.2},
        optax.contrib.muon(LR, muon_weight_dimension_numbers=muon_axes, consistent_rms=0.2),
    ),
    "schedule_free": (
        optimizers.ScheduleFree,
        {"weight_decay": 0.1},
        optax.contrib.schedule_free_adamw(LR, weight_decay=0.1),
    ),
    "any": (
        optimizers.ShardedOptax,
        {"make": optax.nadamw, "arguments": {"weight_decay": 0.1}},
        optax.nadamw(LR, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize(("cls", "fields", "theirs"), PAIRS.values(), ids=PAIRS.keys())
def test_equals_optax(cls, fields, theirs):
    params, grads = problem()
    ours = trajectory(build(cls, **fields).get_grad_transformation(), params, grads)[-1]
    theirs = trajectory(theirs, params, grads)[-1]
    for name in params:
        # Moments corrected step by step are rounded in another order.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=2e-5)


def test_muon_steps_along_orthogonal_matrices():
    """The singular values of its first update are near 1 before the learning rate."""
    params = {"w": jax.random.normal(jax.random.key(0), [5, 7]), "emb_var": jnp.ones([5, 7])}
    tx = build(optimizers.Muon, learning_rate=1.0).get_grad_transformation()
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    # Newton-Schulz with these coefficients ends between 0.68 and 1.13; times sqrt(7 / 5).
    values = np.linalg.svd(updates["w"], compute_uv=False) / np.sqrt(7 / 5)
    assert (values > 0.6).all()
    assert (values < 1.2).all()
    adam: Any = optax.nadam(1.0)  # by default for embeddings
    expected, _ = adam.update(params, adam.init(params))
    np.testing.assert_allclose(updates["emb_var"], expected["emb_var"], rtol=1e-5)


@pytest.mark.parametrize("axes", [([0], [0]), ([0], [3]), ([-1], [0])])
def test_axes_of_muon_must_fit(axes):
    tx = build(optimizers.Muon, matrices={".*/w": axes}).get_grad_transformation()
    with pytest.raises(ValueError, match=r"Muon: variable 'a/w' of shape \[3, 5\] has axes"):
        tx.init({"a": {"w": jnp.ones([3, 5])}})


def test_muon_sees_layers_of_a_stack_apart():
    """In float64: the iteration that orthogonalizes makes differences of rounding larger."""
    hparams: Any = {
        "w": base_layer.WeightHParams([3, 5], dtype=jnp.float32, repeat_prefix=[2]),
        "frozen": BpropMaskedNode(),
    }
    tx: Any = build(optimizers.Muon).get_grad_transformation(hparams)
    vectorized: Any = vectorization.get_transformations_with_vectorized_repeat_prefix(tx, hparams)
    with jax.enable_x64(True):
        weights = jax.random.normal(jax.random.key(0), [2, 3, 5], jnp.float64)
        params = {"w": weights, "frozen": BpropMaskedNode()}
        state = vectorized.init(params)
        spec = vectorized.init_partition_spec(hparams)
        assert jax.tree.structure(spec) == jax.tree.structure(state)
        updates, _ = jax.jit(vectorized.update)(params, state, params)
        own = {"w": params["w"][1]}
        alone, _ = jax.jit(tx.update)(own, tx.init(own), own)
        assert alone["w"].dtype == jnp.float64
        np.testing.assert_allclose(updates["w"][1], alone["w"], rtol=1e-8, atol=1e-10)


def test_schedule_free_average():
    """With stacked layers and without; on a quadratic it is nearer the minimum than the start."""
    hparams: Any = {
        "w": base_layer.WeightHParams([3], dtype=jnp.float32),
        "stack": base_layer.WeightHParams([3], dtype=jnp.float32, repeat_prefix=[2]),
        "frozen": BpropMaskedNode(),
    }
    start = {"w": jnp.full([3], 2.0), "stack": jnp.full([2, 3], 2.0), "frozen": BpropMaskedNode()}
    raw: Any = build(optimizers.ScheduleFree).get_grad_transformation(hparams)
    tx: Any = vectorization.get_transformations_with_vectorized_repeat_prefix(raw, hparams)
    params, state, update = start, tx.init(start), jax.jit(tx.update)
    for _ in range(60):
        updates, state = update(params, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
    average = optimizers.schedule_free_eval_params(state, params)
    fast = state["no_prefix"][2].z["w"]
    np.testing.assert_allclose(0.9 * average["w"] + 0.1 * fast, params["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(average["stack"][1], average["w"], rtol=1e-5)
    assert isinstance(average["frozen"], BpropMaskedNode)
    assert abs(average["w"]).max() < 0.5
    assert abs(average["w"] - params["w"]).max() > 1e-4
    with pytest.raises(ValueError, match="there is no state of a schedule-free optimizer"):
        optimizers.schedule_free_eval_params({"m": jnp.ones(3)}, params)


def test_any_optax_transformation_is_described():
    """Leaves with the path and the shape of a variable are laid out like it, others replicated."""
    hparams: Any = {
        "w": base_layer.WeightHParams(
            [4, 6], dtype=jnp.bfloat16, tensor_split_dims_mapping=["data", "mdl"]
        )
    }
    for make, moments in (
        (optax.inject_hyperparams(optax.sm3), 1),
        (optax.adabelief, 2),
        (optax.contrib.prodigy, 4),
    ):
        tx = build(optimizers.ShardedOptax, make=make).get_grad_transformation(hparams)
        spec = tx.init_partition_spec(hparams)
        state = jax.eval_shape(tx.init, {"w": jax.ShapeDtypeStruct((4, 6), jnp.bfloat16)})
        assert jax.tree.structure(spec) == jax.tree.structure(state)
        split = 0
        for described, leaf in zip(jax.tree.leaves(spec), jax.tree.leaves(state), strict=True):
            assert (tuple(described.shape), described.dtype) == (leaf.shape, leaf.dtype)
            is_moment = leaf.shape == (4, 6)
            split += is_moment
            axes = ["data", "mdl"] if is_moment else [-1] * len(leaf.shape)
            assert described.tensor_split_dims_mapping == axes
        assert split == moments


def test_paths_tell_variables_of_one_shape_apart():
    axes = {"a": ["data"], "b": ["mdl"], "c": [None]}
    hparams: Any = {
        name: {"w": base_layer.WeightHParams([4], tensor_split_dims_mapping=split)}
        for name, split in axes.items()
    }
    hparams["w"] = base_layer.WeightHParams([4], tensor_split_dims_mapping=[("data", "mdl")])
    tx = build(optimizers.ShardedOptax, make=optax.adam).get_grad_transformation(hparams)
    mu = tx.init_partition_spec(hparams)[2][0].mu
    assert {name: mu[name]["w"].tensor_split_dims_mapping for name in axes} == axes
    assert mu["w"].tensor_split_dims_mapping == [("data", "mdl")]


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (optimizers.ShardedOptax, {}, r"make is None. Set it to a function.*optax.adamw"),
        (
            optimizers.ShardedOptax,
            {"make": optax.sgd, "arguments": {"learning_rate": 0.3}},
            r"arguments hold learning_rate = 0.3. Set config.learning_rate",
        ),
        (optimizers.ScheduleFree, {"beta1": 0.0}, r"beta1 is 0.0, expected above 0"),
        (
            optimizers.ScheduleFree,
            {"decoupled_weight_decay": 0.1},
            r"decoupled_weight_decay = 0.1 would move .* Use weight_decay",
        ),
        (optimizers.Adam, {"moment_dtype": jnp.float16}, r"moment_dtype is float16, expected None"),
        (
            optimizers.Adam,
            {"moment_dtype": jnp.bfloat16, "sharded_adam": False},
            r"sharded_adam = False cannot honour",
        ),
    ],
)
def test_impossible_settings_are_refused(cls, fields, message):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {message}"):
        build(cls, **fields)


@pytest.mark.parametrize(
    ("cls", "preset"),
    [
        (optimizers.DistributedShampoo, "HParamsImageClassification"),
        (optimizers.DistributedShampoo, "HParamsLanguageModeling"),
        (optimizers.ShardedDistributedShampoo, "HParamsLargeLanguageModeling"),
    ],
)
def test_shampoo_can_be_configured_but_not_trained_with(cls, preset):
    config = getattr(cls, preset)()
    assert config.graft_type == optimizers.GraftingType.ADAGRAD
    assert isinstance(config, pax_fiddle.Config)
    optimizer = build(cls)
    message = rf"{cls.__name__}: .*not trained with.*Use optimizers.Muon"
    with pytest.raises(NotImplementedError, match=message):
        optimizer.get_grad_transformation()
    if cls is optimizers.ShardedDistributedShampoo:
        with pytest.raises(NotImplementedError, match=message):
            optimizer.init_partition_spec_fn(None, None, None, None)

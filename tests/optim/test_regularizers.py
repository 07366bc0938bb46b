from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from praxis import base_layer, optimizers, pax_fiddle, schedules
from praxis.py_utils import NestedMap

CONSTANT = pax_fiddle.Config(schedules.Constant)
SKIPPED = [base_layer.WeightHParamsCollection.SKIP_LP_REGULARIZATION]


def build(kind, **fields) -> Any:
    """SGD with learning rate 1, as a Pax optimizer or as an optax one in the Pax frame."""
    config = pax_fiddle.Config(
        getattr(optimizers, kind), lr_schedule=CONSTANT.clone(), learning_rate=1.0, **fields
    )
    if kind == "OptaxOptimizer":
        config.grad_tx = optax.sgd(1.0)
    return pax_fiddle.build(config)


def train(optimizer, start, grads, hparams=None) -> Any:
    """The variables after a step with each gradient, under jit."""
    transform = optimizer.get_grad_transformation(hparams)
    params, state = start, transform.init(start)
    step = jax.jit(transform.update)
    for grad in grads:
        updates, state = step(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


KINDS = ["ShardedSgd", "OptaxOptimizer"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("l2_regularizer_weight", -3.0),
        ("l1_regularizer_weight", -1.0),
        ("decoupled_weight_decay", -3.0),
    ],
)
def test_one_step_with_a_penalty(kind, field, expected, skipped):
    """From 2 with gradient 1 and weight 2; variables marked as exempt see none of it."""
    optimizer = build(kind, **{field: 2.0})
    hparams: Any = NestedMap(w=base_layer.WeightHParams([], collections=SKIPPED if skipped else []))
    params, _ = train(optimizer, NestedMap(w=2.0), [NestedMap(w=1.0)], hparams)
    np.testing.assert_allclose(params.w, 1.0 if skipped else expected)


@pytest.mark.parametrize("field", ["l1_regularizer_weight", "l2_regularizer_weight"])
def test_vectors_can_be_exempt(field):
    optimizer = build("ShardedSgd", skip_lp_1d_vectors=True, **{field: 2.0})
    start = NestedMap(scale=jnp.full([3], 2.0), w=jnp.full([3, 5], 2.0))
    hparams = jax.tree.map(lambda x: base_layer.WeightHParams(list(x.shape)), start)
    params, _ = train(optimizer, start, [jax.tree.map(jnp.zeros_like, start)], hparams)
    np.testing.assert_array_equal(params.scale, 2.0)
    assert (params.w < 2.0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("per_var", "expected"), [(None, -4.25), (1.0, -4.25), (2.0, -3.0)])
def test_consolidation_pulls_to_the_first_weights(kind, per_var, expected):
    """Weight 1, learning rate 1, gradients 1, 2, 3 from 0, under jit."""
    weights = None if per_var is None else NestedMap(a=NestedMap(w=per_var))
    optimizer = build(kind, ewc_regularizer_weight=1.0, ewc_weight_per_var=weights)
    grads = [NestedMap(a=NestedMap(w=jnp.float32(g))) for g in (1, 2, 3)]
    params, state = train(optimizer, NestedMap(a=NestedMap(w=jnp.float32(0))), grads)
    np.testing.assert_allclose(params.a.w, expected)
    assert state[4].pretrain_vars.a.w == 0.0


def test_consolidation_in_an_optax_chain_can_be_described():
    weights = NestedMap(a=NestedMap(w=2.0))
    optimizer = build("OptaxOptimizer", ewc_regularizer_weight=1.0, ewc_weight_per_var=weights)
    variable = base_layer.WeightHParams([3], tensor_split_dims_mapping=["data"])
    hparams: Any = NestedMap(a=NestedMap(w=variable))
    transform = optimizer.get_grad_transformation(hparams)
    state = transform.init(NestedMap(a=NestedMap(w=jnp.zeros([3]))))
    spec = optimizers.partition_params(transform, hparams, state)
    assert jax.tree.structure(spec) == jax.tree.structure(state)
    assert spec[4].pretrain_vars.a.w.tensor_split_dims_mapping == ["data"]
    assert spec[4].var_weights.a.w.shape == []


def test_consolidation_anchors_at_what_the_first_update_sees():
    transform = build("ShardedSgd", ewc_regularizer_weight=1.0).get_grad_transformation()
    state = transform.init(NestedMap(w=jnp.float32(7)))
    _, state = transform.update(NestedMap(w=jnp.float32(0)), state, NestedMap(w=jnp.float32(5)))
    assert state[4].pretrain_vars.w == 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_moving_average_has_its_closed_form(kind):
    """Behaviour 72: the average lags one step and starts short."""
    optimizer = build(kind, ema_decay=0.3)
    start = NestedMap(w=jnp.float32(0.0), n=jnp.int32(0))
    grads = [NestedMap(w=jnp.float32(-1.0), n=jnp.int32(0))] * 5
    _, state = train(optimizer, start, grads)
    ema = 0.0
    for count in range(5):
        decay = min(0.3, (1 + count) / (10 + count))
        ema = decay * ema + (1 - decay) * count
    np.testing.assert_allclose(state[-1].ema.w, ema, rtol=2e-5)
    assert state[-1].count == 5
    assert state[-1].ema.n.dtype == jnp.int32


def test_moving_average_can_be_left_out():
    optimizer = build("ShardedSgd", ema_decay=0.3)
    assert len(optimizer.get_grad_transformation().init(NestedMap())) == 5
    assert len(optimizer.get_grad_transformation(include_ema=False).init(NestedMap())) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_off_only_count(kind):
    """The state is (L1, L2, optimizer, decoupled decay), whether they are on or not."""
    _, state = train(build(kind), NestedMap(w=jnp.ones([3])), [NestedMap(w=jnp.ones([3]))] * 2)
    assert [state[i].count for i in (0, 1, 3)] == [2, 2, 2]
    assert len(state) == 4


def arithmetic(transform, tree):
    """Operations of an update on arrays that are not scalars."""
    jaxpr = jax.make_jaxpr(transform.update)(tree, transform.init(tree), tree)

    # Tiny functions of jnp are calls of their own in a jaxpr; their insides are counted.
    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            inner = [p for p in equation.params.values() if hasattr(p, "jaxpr")]
            total += sum(count(p.jaxpr) for p in inner)
            total += not inner and any(v.aval.shape for v in equation.outvars)
        return total

    return count(jaxpr.jaxpr)


def test_the_frame_adds_no_arithmetic_on_tensors():
    tree = NestedMap(a=jnp.ones([3]), b=jnp.ones([2, 5]))
    ours = build("ShardedSgd", l2_regularizer_weight=0.0).get_grad_transformation()
    theirs = optax.sgd(lambda count: 0.5 * count)
    assert 0 < arithmetic(ours, tree) == arithmetic(theirs, tree)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.apply_lp_regularizer(None, 1.0), "L2 regularization needs"),
        (
            lambda: optimizers.apply_decoupled_weight_decay(lambda _: 1.0, None, 1.0),
            "decoupled weight decay needs",
        ),
        (lambda: optimizers.apply_ema_weights(0.9), "moving average of weights needs"),
        (
            lambda: optimizers.apply_ewc_regularization(lambda _: 1.0, 1.0),
            "Elastic weight consolidation needs",
        ),
    ],
)
def test_missing_params_are_named(make, message):
    transform, tree = make(), NestedMap(w=jnp.ones([3]))
    with pytest.raises(ValueError, match=message + r".*update\(updates, state, params\)"):
        transform.update(tree, transform.init(tree))


def test_unknown_power_is_refused():
    with pytest.raises(ValueError, match=r"p is 3.0, expected 1.0 or 2.0"):
        optimizers.apply_lp_regularizer(None, 1.0, 3.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr_schedule": None}, "lr_schedule is None. Set it in the config"),
        (
            {"l1_regularizer_weight": 1.0, "l2_regularizer_weight": 2.0},
            "l1_regularizer_weight = 1.0 and l2_regularizer_weight = 2.0",
        ),
        (
            {"l1_regularizer_weight": 1.0, "decoupled_weight_decay": 2.0},
            "decoupled_weight_decay = 2.0 together with",
        ),
    ],
)
def test_impossible_settings_are_refused(kind, fields, message):
    cls = getattr(optimizers, kind)
    with pytest.raises(ValueError, match=f"{kind}: {message}"):
        cls(**{"lr_schedule": CONSTANT, **fields})


@pytest.mark.parametrize("kind", KINDS)
def test_ema_decay_of_1_is_refused(kind):
    with pytest.raises(ValueError, match=r"ema_decay is 1\.0, expected below 1"):
        build(kind, ema_decay=1.0).get_grad_transformation()


def test_missing_grad_tx_is_named():
    optimizer = optimizers.OptaxOptimizer(lr_schedule=CONSTANT)
    with pytest.raises(ValueError, match=r"grad_tx is None\. Set it to an optax transformation"):
        optimizer.get_grad_transformation()


@pytest.mark.parametrize("kind", KINDS)
def test_learning_rate_is_factor_times_schedule(kind):
    optimizer = build(kind)
    optimizer.learning_rate = 0.3
    assert isinstance(optimizer, optimizers.Optimizer)
    np.testing.assert_allclose(optimizer.get_learning_rate(5), 0.3, rtol=1e-6)

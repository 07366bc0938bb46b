from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paxml import learners, sgf
from praxis import base_layer, optimizers, pax_fiddle, schedules
from praxis.py_utils import BpropMaskedNode, NestedMap

COLLECTIONS = base_layer.WeightHParamsCollection


def optimizer(cls: Any = optimizers.ShardedSgd, **fields) -> Any:
    schedule = pax_fiddle.Config(schedules.Constant)
    return pax_fiddle.Config(cls, **{"learning_rate": 0.1, "lr_schedule": schedule, **fields})


def build(optimizer_config=None, **fields) -> Any:
    config = pax_fiddle.Config(
        learners.Learner, name="learner_0", optimizer=optimizer_config or optimizer(), **fields
    )
    return pax_fiddle.build(config)


def variable(shape, collections=(), **fields):
    return base_layer.WeightHParams(
        shape, dtype=jnp.float32, collections=list(collections), **fields
    )


HPARAMS: Any = {"params": {"lin": {"w": variable([3, 5]), "b": variable([5])}}}


def arrays(hparams=HPARAMS, seed=0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.float32(rng.standard_normal(v.full_shape)), hparams)


def step(learner, grads, state, variables, hparams=HPARAMS) -> Any:
    """One step under jit: (new variables, new optimizer state, summaries)."""

    @jax.jit
    def run(grads, state, variables):
        with base_layer.JaxContext.new_context():
            updates, state = learner.update_states(grads, state, variables, hparams)
            variables = learner.apply_gradient(variables, updates, hparams)
            return variables, state, dict(base_layer.all_global_summaries())

    return run(grads, state, variables)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_step_equals_optax():
    learner = build(optimizer(optimizers.Adam, clip_threshold=0.0))
    variables, theirs = arrays(), optax.adam(0.1, eps=1e-6)
    state, their_state, expected = learner.get_grad_tx(HPARAMS).init(variables), None, variables
    their_state = theirs.init(expected)
    for seed in (1, 2, 3):
        grads = arrays(seed=seed)
        variables, state, _ = step(learner, grads, state, variables)
        updates, their_state = theirs.update(grads, their_state)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), variables, expected
    )


def test_clipping_by_the_norm_of_all():
    """Behaviour 63: norm 10, limit 5."""
    learner = build(optimizer(clip_gradient_norm_to_value=5.0))
    grads = {"a": jnp.asarray([6.0, 0.0]), "b": jnp.asarray(8.0)}
    with base_layer.JaxContext.new_context():
        clipped, valid = learner.scale_gradients(grads)
        summaries = base_layer.all_global_summaries()
    assert valid
    np.testing.assert_allclose(clipped["a"], [3.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], 4.0, rtol=1e-6)
    expected = {"raw_grad_norm": 10, "grad_scale": 0.5, "clipped_grad_norm": 5, "is_valid_step": 1}
    assert {name: float(summaries[f"learning/{name}_scalar"]) for name in expected} == expected


def test_clipping_by_the_norm_of_each():
    """Behaviour 64: each variable alone."""
    learner = build(optimizer(clip_gradient_single_norm_to_value=5.0))
    clipped, _ = learner.scale_gradients({"a": jnp.asarray([6.0, 8.0]), "b": jnp.asarray(3.0)})
    np.testing.assert_allclose(clipped["a"], [3.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], 3.0)


def test_both_clip_settings_are_refused():
    """Behaviour 64: the error names both."""
    both = optimizer(clip_gradient_norm_to_value=1.0, clip_gradient_single_norm_to_value=2.0)
    with pytest.raises(ValueError, match=r"Learner 'learner_0'.*to_value = 1.0.*to_value = 2.0"):
        build(both)


@pytest.mark.parametrize(
    "field", ["clip_gradient_norm_to_value", "clip_gradient_single_norm_to_value"]
)
def test_zero_gradients_stay_zero(field):
    """Behaviour 65: no NaN from clipping."""
    grads = jax.tree.map(jnp.zeros_like, arrays())
    clipped, valid = build(optimizer(**{field: 1.0})).scale_gradients(grads)
    assert valid
    assert_same(clipped, grads)


def test_no_gradients_at_all():
    clipped, valid = build(optimizer(clip_gradient_norm_to_value=1.0)).scale_gradients({})
    assert valid
    assert clipped == {}


def test_norm_of_narrow_gradients_does_not_overflow():
    """The squares of 300 are above the largest float16."""
    grads = {"w": jnp.full([9], 300.0, jnp.float16)}
    clipped, valid = build(optimizer(clip_gradient_norm_to_value=9.0)).scale_gradients(grads)
    assert valid
    assert clipped["w"].dtype == jnp.float16
    np.testing.assert_allclose(clipped["w"], 3.0, rtol=1e-3)  # float16 has 11 bits


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("vectorized", [False, True])
def test_an_invalid_step_changes_nothing(bad, vectorized):
    """Behaviours 40, 41, 66: weights, moments, counts and average are the old ones bit for bit."""
    prefix = {"repeat_prefix": [2]} if vectorized else {}
    hparams: Any = {"params": {"w": variable([3], **prefix), "b": variable([5])}}
    learner = build(optimizer(optimizers.Adam, ema_decay=0.9))
    variables = arrays(hparams)
    state = learner.get_grad_tx(hparams).init(variables)
    variables, state, _ = step(learner, arrays(hparams, 1), state, variables, hparams)
    grads = arrays(hparams, 2)
    grads["params"]["b"] = grads["params"]["b"].at[1].set(bad)
    new_variables, new_state, summaries = step(learner, grads, state, variables, hparams)
    assert_same(new_variables, variables)
    assert_same(new_state, state)
    assert summaries["learning/is_valid_step_scalar"] == 0
    assert summaries["learning/applied_grad_norm_scalar"] == 0


def test_validity_is_told():
    learner, variables = build(), arrays()
    state = learner.get_grad_tx(HPARAMS).init(variables)
    grads = jax.tree.map(lambda g: g * jnp.nan, variables)
    assert not learner.checked_update(grads, state, variables, HPARAMS).is_valid
    assert learner.checked_update(variables, state, variables, HPARAMS).is_valid
    off = build(check_valid_step=False)
    assert off.checked_update(grads, state, variables, HPARAMS).is_valid is True


@pytest.mark.parametrize(
    "fields", [{"enable_skip_step_on_gradient_anomalies": False}, {"check_valid_step": False}]
)
def test_without_skipping_nan_reaches_the_weights(fields):
    """Behaviour 42."""
    learner, variables = build(**fields), arrays()
    state = learner.get_grad_tx(HPARAMS).init(variables)
    grads = jax.tree.map(lambda g: g * jnp.nan, variables)
    new_variables, _, _ = step(learner, grads, state, variables)
    assert jnp.isnan(new_variables["params"]["lin"]["w"]).all()


@pytest.mark.parametrize(("limit", "skipped"), [(9.9, True), (10.1, False), (0.0, False)])
def test_large_norms_are_skipped(limit, skipped):
    """Behaviour 44."""
    learner = build(skip_step_gradient_norm_value=limit)
    _, valid = learner.scale_gradients({"a": jnp.asarray([6.0, 8.0])})
    assert bool(valid) is not skipped


def test_excluded_variables_stay_and_have_no_state():
    """Behaviour 67, from the trees that the task makes of the patterns."""
    learner = build(optimizer(optimizers.Adam))
    variables, grads = arrays(), arrays(seed=1)
    grads["params"]["lin"]["w"] = BpropMaskedNode()
    hparams: Any = {"params": {"lin": {"w": BpropMaskedNode(), "b": variable([5])}}}
    own = {"params": {"lin": {"w": BpropMaskedNode(), "b": variables["params"]["lin"]["b"]}}}
    state = learner.get_grad_tx(hparams).init(own)
    new_variables, new_state, _ = step(learner, grads, state, variables)
    assert_same(new_variables["params"]["lin"]["w"], variables["params"]["lin"]["w"])
    assert not np.array_equal(new_variables["params"]["lin"]["b"], variables["params"]["lin"]["b"])
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert isinstance(new_state[2].m["params"]["lin"]["w"], BpropMaskedNode)


def test_excluding_a_whole_stack_keeps_the_groups_of_the_state():
    """The state was made without the stack; the step sees descriptions with it."""
    hparams: Any = {"stack": variable([3], repeat_prefix=[2]), "head": variable([5])}
    learner, variables = build(), arrays(hparams)
    without = {**hparams, "stack": BpropMaskedNode()}
    state = learner.get_grad_tx(without).init({**variables, "stack": BpropMaskedNode()})
    grads = {**variables, "stack": BpropMaskedNode()}
    new_variables, _, _ = step(learner, grads, state, variables, hparams)
    np.testing.assert_allclose(new_variables["head"], 0.9 * variables["head"], rtol=1e-6)


def test_non_trainable_variables_are_left_to_the_forward_pass():
    hparams: Any = {"w": variable([5]), "mean": variable([5], [COLLECTIONS.NON_TRAINABLE])}
    learner, variables = build(optimizer(ema_decay=0.9)), arrays(hparams)
    state = learner.get_grad_tx(hparams).init(variables)
    new_variables, new_state, _ = step(learner, arrays(hparams, 1), state, variables, hparams)
    assert_same(new_variables["mean"], variables["mean"])
    assert new_state[-1].ema["mean"].shape == (5,)


@pytest.mark.parametrize("keep_state", [False, True])
@pytest.mark.parametrize("filtered", [False, True])
def test_overwritten_variables_become_their_gradient(keep_state, filtered):
    """Behaviour 75; they take no part in clipping."""
    scale = variable([2], [COLLECTIONS.OVERWRITE_WITH_GRADIENT])
    hparams: Any = {"w": variable([5]), "scale": BpropMaskedNode() if filtered else scale}
    learner = build(
        optimizer(clip_gradient_norm_to_value=1.0),
        keep_optimizer_state_for_excluded_vars=keep_state,
    )
    variables = {"w": jnp.zeros([5]), "scale": jnp.ones([2])}
    grads = {"w": jnp.full([5], 0.1), "scale": jnp.asarray([300.0, 500.0])}
    tx = learner.get_grad_tx(hparams)
    state = tx.init(variables if keep_state else {**variables, "scale": BpropMaskedNode()})
    new_variables, _, _ = step(learner, grads, state, variables, hparams)
    np.testing.assert_array_equal(new_variables["scale"], [300.0, 500.0])
    np.testing.assert_allclose(new_variables["w"], -0.01, rtol=1e-6)


def test_updates_scaled_by_the_initializer():
    """Behaviour 74: only rank 2 and more."""
    init = base_layer.WeightInit.Gaussian(3.0)
    hparams: Any = {"w": variable([2, 5], init=init), "b": variable([5], init=init)}
    learner = build(scale_update_by_var_norm=True)
    variables = arrays(hparams)
    grads = jax.tree.map(jnp.ones_like, variables)
    updates = jax.tree.map(lambda g: -0.1 * g, grads)
    new_variables = learner.apply_gradient(variables, updates, hparams)
    np.testing.assert_allclose(new_variables["w"], np.float64(variables["w"]) - 0.3, rtol=2e-5)
    np.testing.assert_allclose(new_variables["b"], np.float64(variables["b"]) - 0.1, rtol=2e-5)


def test_variables_keep_their_type():
    hparams: Any = {"w": base_layer.WeightHParams([5], dtype=jnp.bfloat16)}
    learner, variables = build(optimizer(optimizers.Adam)), {"w": jnp.ones([5], jnp.bfloat16)}
    state = learner.get_grad_tx(hparams).init(variables)
    new_variables, _, _ = step(learner, variables, state, variables, hparams)
    assert new_variables["w"].dtype == jnp.bfloat16


def test_summaries_of_single_variables():
    learner = build(grad_norm_individual_vars=True, var_norm_individual_vars=True)
    variables = arrays()
    state = learner.get_grad_tx(HPARAMS).init(variables)
    _, _, summaries = step(learner, variables, state, variables)
    norm = np.linalg.norm(np.float64(variables["params"]["lin"]["w"]))
    for name in ("per_var_grad_norm", "per_var_norm"):
        np.testing.assert_allclose(summaries[f"{name}/params/lin/w_scalar"], norm, rtol=1e-5)
    whole = optax.tree_utils.tree_norm(variables)
    np.testing.assert_allclose(summaries["learning/var_norm_scalar"], whole, rtol=1e-5)


def test_learning_rate_summaries():
    learner = build()
    with base_layer.JaxContext.new_context():
        learner.plot_learning_rate(3)
        assert sorted(base_layer.all_global_summaries()) == ["learning/lr_scalar", "lr_scalar"]


def test_groups_of_stacked_layers():
    hparams: Any = {"w": variable([3], repeat_prefix=[2])}
    assert sorted(build().get_grad_tx(hparams).init(arrays(hparams))) == ["no_prefix", "p#2#i-1"]
    underscore = build(repeat_prefix_sep="_").get_grad_tx(hparams).init(arrays(hparams))
    assert sorted(underscore) == ["no_prefix", "p_2_i-1"]
    forced = build(force_repeat_prefix_structure=True).get_grad_tx(HPARAMS).init(arrays())
    assert sorted(forced) == ["no_prefix"]
    plain = build(vectorize_on_repeat_prefix=False).get_grad_tx(hparams).init(arrays(hparams))
    assert isinstance(plain, tuple)


def test_the_default_step_adds_no_arithmetic_but_the_norms():
    """Compiled, a step is the forward of optax plus what the summaries ask for."""
    bare = build(grad_norm_summary=False, var_norm_summary=False, check_valid_step=False)
    variables = arrays()
    state = bare.get_grad_tx(HPARAMS).init(variables)

    def ours(grads, state, variables):
        updates, state = bare.update_states(grads, state, variables, HPARAMS)
        return bare.apply_gradient(variables, updates, HPARAMS), state

    theirs = optax.sgd(lambda _: 0.1)

    def hand_written(grads, state, variables):
        updates, state = theirs.update(grads, state, variables)
        return optax.apply_updates(variables, updates), state

    def flops(fn, *args):
        cost = jax.jit(fn).lower(*args).compile().cost_analysis()
        assert cost is not None
        return cost["flops"]

    # The three counts of features that are off are one addition each.
    expected = flops(hand_written, variables, theirs.init(variables), variables) + 3
    assert flops(ours, variables, state, variables) <= expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"skip_zero_gradients": True}, "skip_zero_gradients is True, but is no longer supported"),
        (
            {"force_repeat_prefix_structure": True, "vectorize_on_repeat_prefix": False},
            "force_repeat_prefix_structure needs vectorize_on_repeat_prefix",
        ),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"Learner 'learner_0': {message}"):
        build(**fields)


def test_missing_optimizer_is_named():
    learner = pax_fiddle.build(pax_fiddle.Config(learners.Learner, name="learner_0"))
    with pytest.raises(ValueError, match=r"Learner 'learner_0': optimizer is None\. Set it"):
        learner.get_grad_tx(HPARAMS)


def test_standard_gradient():
    def loss_fn(variables, frozen_and_inputs, key):
        frozen, x = frozen_and_inputs
        return jnp.sum(variables["w"] * frozen * x), sgf.GradAuxInfo(aux_info=key)

    gradient = pax_fiddle.build(pax_fiddle.Config(sgf.StandardGradient))
    (loss, aux), grads = gradient.grad_fn(
        loss_fn, {"w": jnp.float32(3.0)}, (jnp.float32(2.0), jnp.float32(5.0)), jnp.zeros([2])
    )
    assert (loss, grads["w"]) == (30.0, 10.0)
    assert aux.loss_weight == 1.0
    assert gradient.process_aux_info(aux) is aux


def test_nested_maps_work_as_well():
    hparams: Any = NestedMap(w=variable([5]))
    learner, variables = build(), NestedMap(w=jnp.ones([5]))
    state = learner.get_grad_tx(hparams).init(variables)
    new_variables, _, _ = step(learner, variables, state, variables, hparams)
    np.testing.assert_allclose(new_variables.w, 0.9, rtol=1e-6)

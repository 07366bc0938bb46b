"""One step at a time (behaviours 40, 42, 43, 56, 57, 59, 67-69, 72, 75, 77)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import trainer_lib
from paxml.trainer import dtypes, forward
from paxml.trainer.eval_step import split_provenance
from praxis import base_layer, pax_fiddle, py_utils

KEY = jax.random.PRNGKey(3)
X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
BATCH = py_utils.NestedMap(x=X, y=X.sum(-1) + 1)


def make_task(**settings):
    """The toy task without dropout; names with dots set nested fields."""
    config = toy_experiment.Toy().task()
    config.model.keep_prob = 1.0
    for name, value in settings.items():
        *parents, field = name.split("__")
        owner = config
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, field, value)
    return pax_fiddle.instantiate(config)


def first_state(task):
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), BATCH)
    return trainer_lib.initialize_model_state(task, KEY, specs)[0]


def step(task, state, batch=BATCH, **kwargs):
    return jax.jit(lambda s, b: trainer_lib.train_step_single_learner(task, s, KEY, b, **kwargs))(
        state, batch
    )


def test_a_step_against_numpy():
    task = make_task()
    before = first_state(task)
    state, out = step(task, before)
    w, b = (np.float64(before.mdl_vars["params"][name]) for name in "wb")
    error = X @ w + b - BATCH.y
    np.testing.assert_allclose(out.loss, np.mean(error**2), rtol=2e-5)
    grads = {"w": 2 * X.T @ error / 5, "b": 2 * error.mean()}
    norm = np.sqrt(np.sum(grads["w"] ** 2) + grads["b"] ** 2)
    np.testing.assert_allclose(
        out.summary_tensors["learning/raw_grad_norm_scalar"], norm, rtol=2e-5
    )
    for name, grad in grads.items():  # the first step of Adam is the sign of the gradient
        moved = np.float64(state.mdl_vars["params"][name]) - before.mdl_vars["params"][name]
        np.testing.assert_allclose(moved, -0.1 * np.sign(grad), rtol=1e-3)
    np.testing.assert_allclose(
        state.mdl_vars["non_trainable"]["mean"], 0.1 * X.mean(0), rtol=2e-5, atol=2e-6
    )
    np.testing.assert_allclose(
        out.summary_tensors["vars/params/w_scalar"],
        np.sqrt(np.mean(np.float64(state.mdl_vars["params"]["w"]) ** 2)),
        rtol=2e-5,
    )
    assert int(state.step) == 1


def test_a_step_with_nan_changes_nothing_but_the_step_number():
    task = make_task(model__nan_at=-1e9)
    before = first_state(task)
    state, out = step(task, before)
    assert np.isnan(out.loss)
    assert float(out.summary_tensors["learning/is_valid_step_scalar"]) == 0
    jax.tree.map(np.testing.assert_array_equal, state.mdl_vars, before.mdl_vars)
    jax.tree.map(np.testing.assert_array_equal, state.opt_states, before.opt_states)
    assert int(state.step) == 1


def test_without_skipping_nan_reaches_the_weights():
    task = make_task(
        model__nan_at=-1e9, train__learner__enable_skip_step_on_gradient_anomalies=False
    )
    state, _ = step(task, first_state(task))
    assert np.isnan(state.mdl_vars["params"]["w"]).all()


@pytest.mark.parametrize(
    ("rule", "pattern", "fixed"),
    [
        ("exclusion", "params/w", "w"),
        ("inclusion", ["params/w"], "b"),
    ],
)
def test_rules_keep_variables_fixed_and_without_optimizer_state(rule, pattern, fixed):
    task = make_task(**{f"train__learner__bprop_variable_{rule}": pattern})
    before = first_state(task)
    shape = before.mdl_vars["params"][fixed].shape
    moments = [leaf for leaf in jax.tree.leaves(before.opt_states) if leaf.dtype == jnp.float32]
    assert moments
    assert all(leaf.shape != shape for leaf in moments)
    state, _ = step(task, before)
    moved = {
        name: bool(np.any(state.mdl_vars["params"][name] != before.mdl_vars["params"][name]))
        for name in "wb"
    }
    assert moved == {name: name != fixed for name in "wb"}


def test_kept_optimizer_state_covers_excluded_variables():
    task = make_task(
        train__learner__bprop_variable_exclusion="params/w",
        train__learner__keep_optimizer_state_for_excluded_vars=True,
    )
    before = first_state(task)
    assert sum(leaf.shape == (3,) for leaf in jax.tree.leaves(before.opt_states)) == 4  # w and mean
    state, _ = step(task, before)
    np.testing.assert_array_equal(state.mdl_vars["params"]["w"], before.mdl_vars["params"]["w"])


def test_an_excluded_running_mean_keeps_its_value():
    task = make_task(train__learner__bprop_variable_exclusion="non_trainable/.*")
    state, _ = step(task, first_state(task))
    np.testing.assert_array_equal(state.mdl_vars["non_trainable"]["mean"], np.zeros(3))


def test_both_rules_or_a_pattern_without_match_are_told():
    task = make_task(
        train__learner__bprop_variable_exclusion="a", train__learner__bprop_variable_inclusion="b"
    )
    with pytest.raises(ValueError, match=r"bprop_variable_exclusion = .*inclusion = .*both set"):
        first_state(task)
    task = make_task(train__learner__bprop_variable_exclusion="lin")
    with pytest.warns(UserWarning, match="'lin' matches no variable.*params/b"):
        first_state(task)


def test_averaged_weights_follow_the_running_mean_of_the_same_step():
    task = make_task(train__learner__optimizer__ema_decay=0.9)
    assert task.has_ema_decay
    state, _ = step(task, first_state(task))
    averages = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_states)
        if "ema" in str(path) and "mean" in str(path)
    ]
    decay = 1 / 10  # min(0.9, (1 + 0) / (10 + 0))
    expected = (1 - decay) * np.float32(state.mdl_vars["non_trainable"]["mean"])
    np.testing.assert_allclose(averages[0], expected, rtol=1e-5)


def test_bfloat16_computes_narrow_and_keeps_float32_variables():
    task = make_task()
    before = first_state(task)
    state, out = step(task, before, fprop_dtype=jnp.bfloat16)
    _, wide = step(task, before)
    assert out.loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state.mdl_vars)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(out.loss, wide.loss, rtol=2e-2)
    assert float(out.loss) != float(wide.loss)


@pytest.mark.parametrize("dtype", [jnp.float16, "float17"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=r"fprop_dtype.*(float16|float17).*expected float32 or"):
        dtypes.forward_dtype(make_task(model__fprop_dtype=dtype).model)


def test_noise_starts_at_its_step_and_is_not_stored():
    quiet, noisy, later = (
        make_task(vn__vn_scale=scale, vn__vn_regex="params/w", vn__vn_start_step=start)
        for scale, start in ((0.0, 0), (1.0, 0), (1.0, 1))
    )
    before = first_state(quiet)
    losses = [float(step(task, before)[1].loss) for task in (quiet, noisy, later)]
    assert losses[0] == losses[2] != losses[1]
    adjusted = noisy.maybe_adjust_train_state(before.step, before.mdl_vars, None, KEY)
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), adjusted, before.mdl_vars)
    assert moved == {"params": {"w": True, "b": False}, "non_trainable": {"mean": False}}


def test_noise_that_matches_nothing_shows_names():
    task = make_task(vn__vn_scale=1.0, vn__vn_regex="w")
    with pytest.raises(RuntimeError, match=r"vn_regex = 'w' matches no variable.*params/b"):
        step(task, first_state(task))


def test_evaluation_has_no_dropout_and_writes_nothing():
    config = toy_experiment.Toy().task()
    task = pax_fiddle.instantiate(config)
    state = first_state(task)
    batch = jax.tree.map(jnp.asarray, BATCH)
    new_state, out = trainer_lib.eval_step_single_learner(task, state.to_eval_state(), KEY, batch)
    assert new_state is None
    w, b = (np.float64(state.mdl_vars["params"][name]) for name in "wb")
    np.testing.assert_allclose(out.loss, np.mean((X @ w + b - BATCH.y) ** 2), rtol=2e-5)
    assert out.per_example_out["error"].shape == (5,)


def test_provenance_bypasses_the_model():
    inputs = py_utils.NestedMap({"x": 1, "_seqio_provenance/index": 2})
    assert split_provenance(inputs) == ({"x": 1}, {"_seqio_provenance/index": 2})


class Pair:
    """A metric object."""

    def merge(self, other):
        return other

    def compute(self):
        return 0.0


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "at least one"),
        ({"a": 3.0}, "'a' is a float"),
        ({"a": (1.0, 1.0), "b": Pair()}, "'b' is an object.*'a' is a .value, weight. pair"),
    ],
    ids=["empty", "number", "mixed"],
)
def test_metrics_of_a_wrong_kind_name_the_key(metrics, message):
    with pytest.raises(TypeError, match=message):
        forward.split_metrics(metrics)


def test_a_loss_that_is_no_metric_lists_the_metrics():
    task = make_task(train__learner__loss_name="total")
    with pytest.raises(KeyError, match=r"no metric 'total'.*\['loss', 'mae'\].*loss_name"):
        step(task, first_state(task))


def test_a_custom_apply_and_gradient_function_are_used():
    task = make_task()
    before = first_state(task)
    calls = []

    def apply_fn(model, variables, inputs, mutable, rngs):
        calls.append(sorted(rngs))
        return model.apply(variables, inputs, mutable=mutable, rngs=rngs)

    def grad_fn(loss_fn, learner, mdl_vars, inputs, prng_key):
        (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(mdl_vars, inputs, prng_key)
        return (loss, aux), jax.tree.map(jnp.zeros_like, grads)

    state, _ = step(task, before, grad_fn=grad_fn, apply_fn=apply_fn)
    jax.tree.map(np.testing.assert_array_equal, state.mdl_vars["params"], before.mdl_vars["params"])
    assert calls
    assert calls[0] == sorted([base_layer.PARAMS, base_layer.RANDOM, base_layer.NON_PAX_RNG_KEY])

"""Gradients over microbatches are those of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import learners, sgf, trainer_lib
from paxml.learner import forward
from paxml.learner.accumulate import accumulated_value_and_grad
from praxis import pax_fiddle, py_utils

KEY = jax.random.PRNGKey(3)
RNG = np.random.default_rng(1)
X = RNG.standard_normal((6, 3)).astype(np.float32)
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0, 0.0, 3.0], np.float32)
BATCH = py_utils.NestedMap(x=X, y=X.sum(-1) + 1, weights=WEIGHTS)


class Weighted(toy_experiment.Regression):
    """The weighted mean over examples; its count of them is a second metric."""

    def compute_loss(self, predictions, input_batch):
        error = jnp.square(predictions - input_batch.y)
        weights = input_batch.weights
        total = jnp.sum(weights)
        loss = jnp.sum(weights * error) / total
        scalars = py_utils.NestedMap(loss=(loss, total), examples=(jnp.mean(error), jnp.float32(1)))
        return scalars, {"error": error, "x": input_batch.x}


def make_task(num_microbatches):
    config = toy_experiment.variant(MODEL=Weighted).task()
    config.model.keep_prob = 1.0
    config.train.learner.num_microbatches = num_microbatches
    return pax_fiddle.instantiate(config)


def step(num_microbatches, batch=BATCH):
    task = make_task(num_microbatches)
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    state, _ = trainer_lib.initialize_model_state(task, KEY, specs)
    return jax.jit(lambda s, b: trainer_lib.train_step_single_learner(task, s, KEY, b))(
        state, jax.tree.map(jnp.asarray, batch)
    )


def test_a_step_in_microbatches_equals_that_of_the_batch():
    """Microbatches of three have the weights 1, 0.5 + 2 and 0 + 3: a plain mean would differ."""
    (whole, whole_out), (parts, parts_out) = step(1), step(3)
    for tree, other in (
        (parts.opt_states, whole.opt_states),  # gradients and their squares
        (parts.mdl_vars, whole.mdl_vars),
        (parts_out.loss, whole_out.loss),
        (dict(parts_out.weighted_scalars)["loss"], dict(whole_out.weighted_scalars)["loss"]),
        (parts_out.per_example_out, whole_out.per_example_out),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), tree, other
        )
    assert int(parts.step) == 1
    assert float(parts_out.weighted_scalars["examples"][1]) == 3


def test_a_microbatch_without_weight_does_not_spread_its_nan():
    """Rows 2 and 5 are a microbatch, whose weighted mean is 0 / 0."""
    weights = np.array([1.0, 0.5, 0.0, 2.0, 3.0, 0.0], np.float32)
    batch = py_utils.NestedMap(BATCH, weights=weights)
    state, out = step(3, batch)
    assert float(out.weighted_scalars["loss"][1]) == 6.5
    whole, _ = step(1, batch)
    for name in "wb":
        np.testing.assert_allclose(
            state.mdl_vars["params"][name], whole.mdl_vars["params"][name], rtol=2e-5, atol=2e-6
        )


def test_integer_variables_have_empty_gradients():
    def loss(variables, others, key):
        del key
        return jnp.mean(variables["w"] * others[1]), sgf.GradAuxInfo({}, jnp.float32(2.0))

    (_, aux), grads = accumulated_value_and_grad(
        loss, {"w": jnp.float32(1), "n": jnp.int32(3)}, {}, jnp.arange(4.0), KEY, num_microbatches=2
    )
    np.testing.assert_allclose(grads["w"], 1.5)
    assert grads["n"].dtype == jax.dtypes.float0
    assert float(aux.loss_weight) == 4


def test_the_batch_must_divide():
    with pytest.raises(ValueError, match=r"num_microbatches = 4: .* has 6 rows.*4 equal parts"):
        step(4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_microbatches": 0}, "num_microbatches is 0, expected at least 1"),
        (
            {
                "num_microbatches": 2,
                "stochastic_gradient": pax_fiddle.Config(sgf.StandardGradient),
            },
            "num_microbatches = 2 and stochastic_gradient are both set",
        ),
    ],
    ids=["zero", "private"],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        pax_fiddle.instantiate(pax_fiddle.Config(learners.Learner, name="l", **fields))


def test_parts_of_a_batch_join_in_its_order():
    rows = jnp.arange(6)
    parts = forward.split_rows(rows, 3, "parts")
    np.testing.assert_array_equal(parts, [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(forward.join_rows(parts), rows)


class Peak:
    """A metric object that keeps the larger value."""

    def __init__(self, value):
        self.value = value

    def merge(self, other):
        return Peak(jnp.maximum(self.value, other.value))


jax.tree_util.register_pytree_node(Peak, lambda p: ((p.value,), None), lambda _, v: Peak(*v))


def test_metric_objects_are_merged():
    result = forward.ForwardResult(
        mean_loss=jnp.array([1.0, 2.0]),
        weighted_scalars={},
        clu_metrics={"peak": Peak(jnp.array([3.0, 5.0]))},
        per_example_out={},
        updated_vars={"count": jnp.array([4, 4])},
        summaries={},
    )
    combined = forward.combine(result, jnp.array([1.0, 3.0]))
    assert float(combined.clu_metrics["peak"].value) == 5
    assert float(combined.mean_loss) == 1.75
    assert int(combined.updated_vars["count"]) == 4

"""Averages of the weights as a state to evaluate (behaviour 72)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import checkpoints, learners, tasks_lib, train
from paxml.program.base import get_eval_train_state
from paxml.summary.events import read_scalars
from praxis import base_layer, optimizers, pax_fiddle, schedules
from praxis.utils import trees

DECAY = 0.95


def learner(**fields):
    adam = pax_fiddle.Config(
        optimizers.Adam,
        learning_rate=0.1,
        lr_schedule=pax_fiddle.Config(schedules.Constant),
        ema_decay=DECAY,
    )
    config = pax_fiddle.Config(learners.Learner, name="l", optimizer=adam, **fields)
    return pax_fiddle.instantiate(config)


def weight(*shape, repeat=None):
    return base_layer.WeightHParams(list(shape), repeat_prefix=repeat)


def train_5_steps(the_learner, hparams, values):
    """States 0 to 5 of variables with the gradients 1, 2, ..."""
    excluded = tasks_lib.get_excluded_var_mask_for_opt(hparams, the_learner)
    keep = lambda tree: tasks_lib.filter_vars_for_grad_or_opt(tree, excluded)  # noqa: E731
    states = [tasks_lib.create_state(values, hparams, False, [the_learner])]
    for number in range(5):
        old = states[-1]
        own = keep(old.mdl_vars)
        grads = jax.tree.map(lambda x, n=number: jnp.full_like(x, n + 1.0), own)
        updates, opt = the_learner.update_states(grads, old.opt_states[0], own, keep(hparams))
        new = the_learner.apply_gradient(own, updates, keep(hparams))
        new = jax.tree.map(
            lambda x, y: y if trees.is_bprop_masked_node(x) else x,
            new,
            old.mdl_vars,
            is_leaf=trees.is_bprop_masked_node,
        )
        states.append(old.new_state(new, [opt]))
    return states


def closed_formula(values):
    """ema_5 from the weights before each step: d = min(decay, (1 + n) / (10 + n))."""
    ema = np.float64(values[0])
    for count, value in enumerate(values[:5]):
        decay = min(DECAY, (1 + count) / (10 + count))
        ema = decay * ema + (1 - decay) * np.float64(value)
    return ema


@pytest.mark.parametrize("stacked", [False, True], ids=["plain", "vectorized"])
def test_the_average_after_5_steps(stacked):
    """With a stack of layers the state is in groups; b is excluded from training."""
    repeat = [4] if stacked else None
    hparams = {"params": {"w": weight(3, repeat=repeat), "v": weight(2), "b": weight(2)}}
    values = jax.tree.map(lambda h: jnp.ones([*(h.repeat_prefix or []), *h.shape]), hparams)
    states = train_5_steps(learner(bprop_variable_exclusion="params/b"), hparams, values)
    assert tasks_lib.is_vectorized(states[-1]) == stacked
    average = tasks_lib.extract_ema(states[-1])
    assert int(average.step) == 5
    assert average.opt_states == []
    for name in "wv":
        found = average.mdl_vars["params"][name]
        weights = [state.mdl_vars["params"][name] for state in states]
        assert found.shape == weights[0].shape
        np.testing.assert_allclose(found, closed_formula(weights), rtol=2e-5)
        assert np.all(found != weights[-1])
    np.testing.assert_array_equal(average.mdl_vars["params"]["b"], np.ones(2))
    plain = tasks_lib.extract_ema(states[-1], merge_for_bprop_exclusion=False)
    assert trees.is_bprop_masked_node(plain.mdl_vars["params"]["b"])


def test_a_state_without_an_average_is_refused():
    state = tasks_lib.TrainState(jnp.uint32(0), {"params": {}}, [({"count": 0},)])
    with pytest.raises(ValueError, match=r"no moving average.*optimizer\.ema_decay above 0"):
        tasks_lib.extract_ema(state)
    with pytest.raises(ValueError, match="0 optimizer states, expected the one of a single"):
        tasks_lib.extract_ema(state.to_eval_state())


def test_evaluation_uses_the_average_on_demand(tmp_path):
    class Averaged(toy_experiment.Toy):
        STEPS = 2
        EVAL = 2

        def task(self):
            task = super().task()
            task.train.learner.optimizer.ema_decay = DECAY
            task.train.eval_use_ema_states = True
            return task

    train.train_and_evaluate(Averaged(), tmp_path, False, True)
    task = pax_fiddle.instantiate(Averaged().task())
    specs = Averaged().get_input_specs_provider_params().Instantiate().get_input_specs()
    shapes = task.create_train_state_unpadded_shapes(task.model.abstract_init_with_metadata(specs))
    gda = checkpoints.CheckpointType.GDA
    state = checkpoints.restore_checkpoint(shapes, tmp_path / "checkpoints", checkpoint_type=gda)

    def loss(mdl_vars):
        config = pax_fiddle.Config(toy_experiment.CountingInput, name="test", batch_size=8)
        source, losses = config.Instantiate(), []
        for batch in (source.get_next(), source.get_next()):
            w, b = (np.float64(mdl_vars["params"][name]) for name in "wb")
            losses.append(np.mean((batch.x @ w + b - batch.y) ** 2))
        return np.mean(losses)

    found = read_scalars(tmp_path / "summaries" / "eval_test_test", "loss")[2]
    averaged = get_eval_train_state(task, state, use_ema=True)
    np.testing.assert_allclose(found, loss(averaged.mdl_vars), rtol=2e-5)
    assert abs(found - loss(state.mdl_vars)) > 0.01 * found


def test_an_average_that_the_learner_does_not_keep_is_refused():
    task = pax_fiddle.instantiate(toy_experiment.Toy().task())
    state = tasks_lib.TrainState(jnp.uint32(0), {}, [()])
    with pytest.raises(ValueError, match=r"'toy'.*eval_use_ema_states.*ema_decay"):
        get_eval_train_state(task, state, use_ema=True)

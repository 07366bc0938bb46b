from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paxml import learners
from praxis import base_layer, optimizers, pax_fiddle, schedules

HPARAMS: Any = {
    "params": {
        "emb": {"w": base_layer.WeightHParams([7, 3], dtype=jnp.float32)},
        "lm": {"w": base_layer.WeightHParams([3, 5], dtype=jnp.float32)},
        "head": {"b": base_layer.WeightHParams([5], dtype=jnp.float32)},
    }
}


def optimizer(cls: Any = optimizers.ShardedSgd, learning_rate=0.1, **fields) -> Any:
    schedule = pax_fiddle.Config(schedules.Constant)
    return pax_fiddle.Config(cls, learning_rate=learning_rate, lr_schedule=schedule, **fields)


def build(main=None, auxiliary=((optimizers.Adam, 0.01, "params/emb/.*", "emb"),), **fields):
    config = pax_fiddle.Config(
        learners.MultiOptimizerLearner,
        name="learner_0",
        optimizer=main or optimizer(),
        auxiliary_optimizers=[optimizer(cls, rate) for cls, rate, _, _ in auxiliary],
        auxiliary_regex=[regex for _, _, regex, _ in auxiliary],
        auxiliary_names=[name for _, _, _, name in auxiliary],
        **fields,
    )
    return pax_fiddle.build(config)


def arrays(hparams=HPARAMS, seed=0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.float32(rng.standard_normal(v.full_shape)), hparams)


def test_each_variable_has_its_own_optimizer():
    """Behaviour 70."""
    learner = build(auxiliary=[(optimizers.Lion, 0.01, "params/emb", "emb")])
    variables, grads = arrays(), arrays(seed=1)
    tx = learner.get_grad_tx(HPARAMS)
    state = tx.init(variables)
    updates, new_state = learner.update_states(grads, state, variables, HPARAMS)
    own, theirs = updates["params"], grads["params"]
    np.testing.assert_allclose(own["emb"]["w"], -0.01 * np.sign(theirs["emb"]["w"]), rtol=1e-6)
    np.testing.assert_allclose(own["lm"]["w"], -0.1 * theirs["lm"]["w"], rtol=1e-6)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert jax.tree.structure(tx.init_partition_spec(HPARAMS)) == jax.tree.structure(state)
    masked = new_state[1].inner_state[2].m["params"]["lm"]["w"]
    assert isinstance(masked, optax.MaskedNode)


def test_stacked_layers_and_the_average_of_the_main_optimizer():
    hparams: Any = {
        "params": {
            "stack": base_layer.WeightHParams([3], dtype=jnp.float32, repeat_prefix=[2]),
            "emb": base_layer.WeightHParams([5], dtype=jnp.float32),
        }
    }
    learner = build(optimizer(ema_decay=0.9), [(optimizers.Adam, 0.01, "params/stack", "stack")])
    variables = arrays(hparams)
    tx = learner.get_grad_tx(hparams)
    state = tx.init(variables)
    assert jax.tree.structure(tx.init_partition_spec(hparams)) == jax.tree.structure(state)
    _, state = learner.update_states(arrays(hparams, 1), state, variables, hparams)
    assert state["p#2#i-1"][0].ema["params"]["stack"].shape == (2, 3)
    assert state["no_prefix"][0].ema["params"]["emb"].shape == (5,)


def test_without_auxiliary_optimizers_it_is_a_learner():
    variables, grads = arrays(), arrays(seed=1)
    learner = build(auxiliary=())
    updates, _ = learner.update_states(
        grads, learner.get_grad_tx(HPARAMS).init(variables), variables, HPARAMS
    )
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -0.1 * g, rtol=1e-6), updates, grads)


def test_optax_optimizers():
    def wrapped(tx):
        return optimizer(optimizers.OptaxOptimizer, grad_tx=tx)

    config = pax_fiddle.Config(
        learners.MultiOptimizerLearner,
        optimizer=wrapped(optax.sgd(0.1)),
        auxiliary_optimizers=[wrapped(optax.sgd(0.5))],
        auxiliary_regex=["params/emb"],
        auxiliary_names=["emb"],
    )
    learner, variables = pax_fiddle.build(config), arrays()
    tx = learner.get_grad_tx(HPARAMS)
    updates, _ = tx.update(variables, tx.init(variables), variables)
    emb = variables["params"]["emb"]["w"]
    np.testing.assert_allclose(updates["params"]["emb"]["w"], -0.5 * emb, rtol=1e-6)


def test_one_scale_for_all_by_default():
    learner = build(optimizer(clip_gradient_norm_to_value=1.0))
    variables, grads = arrays(), arrays(seed=1)
    with base_layer.JaxContext.new_context():
        learner.update_states(
            grads, learner.get_grad_tx(HPARAMS).init(variables), variables, HPARAMS
        )
        norm = base_layer.all_global_summaries()["learning/clipped_grad_norm_scalar"]
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)


@pytest.mark.parametrize("skip", [True, False])
def test_separate_scaling(skip):
    """Behaviour 71: own norms; NaN of one group does not reach the weights of another."""
    learner = build(
        optimizer(clip_gradient_norm_to_value=1.0),
        apply_separate_scaling=True,
        enable_skip_step_on_gradient_anomalies=skip,
    )
    variables, grads = arrays(), arrays(seed=1)
    grads["params"]["emb"]["w"] = grads["params"]["emb"]["w"].at[0, 0].set(jnp.nan)
    state = learner.get_grad_tx(HPARAMS).init(variables)
    with base_layer.JaxContext.new_context():
        result = learner.checked_update(grads, state, variables, HPARAMS)
        summaries = base_layer.all_global_summaries()
    assert not result.is_valid
    np.testing.assert_allclose(summaries["learning/main/clipped_grad_norm_scalar"], 1.0, rtol=1e-5)
    assert summaries["learning/main/is_valid_step_scalar"] == 1
    assert summaries["learning/emb/is_valid_step_scalar"] == 0
    assert jnp.isfinite(result.updates["params"]["lm"]["w"]).all()
    assert bool((result.updates["params"]["lm"]["w"] == 0).all()) is skip


def test_learning_rates_are_named():
    """Behaviour 70: the tags."""
    with base_layer.JaxContext.new_context():
        build().plot_learning_rate(0)
        rates = {k: round(float(v), 6) for k, v in base_layer.all_global_summaries().items()}
    assert rates == {"learning/lr_main_scalar": 0.1, "learning/lr_emb_scalar": 0.01}


def test_overlapping_patterns_are_refused():
    """Behaviour 70."""
    learner = build(
        auxiliary=[(optimizers.Adam, 0.1, "params/emb", "a"), (optimizers.Adam, 0.1, ".*w", "b")]
    )
    with pytest.raises(ValueError, match=r"'params/emb/w' matches .* must be non-overlapping"):
        learner.get_grad_tx(HPARAMS)


def test_lengths_are_checked():
    """Behaviour 70."""
    config = pax_fiddle.Config(
        learners.MultiOptimizerLearner, optimizer=optimizer(), auxiliary_regex=["x"]
    )
    with pytest.raises(ValueError, match=r"have lengths \[0, 1, 0\], expected equal ones"):
        pax_fiddle.build(config)


def test_kinds_of_optimizers_do_not_mix():
    with pytest.raises(TypeError, match="some optimizers are OptaxOptimizer and some are not"):
        build(optimizer(optimizers.OptaxOptimizer, grad_tx=optax.sgd(0.1)))

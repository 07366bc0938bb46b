from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizer_cases import build

from praxis import optimizers, pax_fiddle, schedules
from praxis.py_utils import NestedMap


def accumulator(inner=None, **fields) -> Any:
    fields = {"learning_rate": 1.0, **fields}
    inner = inner or pax_fiddle.Config(optimizers.ShardedSgd)
    return build(optimizers.ShardedStaticAccumulator, optimizer_tpl=inner, **fields)


@pytest.mark.parametrize("cond", [False, True])
def test_emits_the_mean_of_sub_batches(cond):
    """3 sub-batches, gradients 1, 2, 3 four times over, without params."""
    optimizer = accumulator(num_sub_batches=3, accumulation_use_cond_op=cond)
    transform = optimizer.get_grad_transformation()
    value, state, steps = NestedMap(w=jnp.float32(0)), None, []
    state = transform.init(value)
    update = jax.jit(transform.update)
    for grad in [1, 2, 3] * 4:
        updates, state = update(NestedMap(w=jnp.float32(grad)), state)
        steps.append(float(updates.w))
    assert steps == [0.0, 0.0, -2.0] * 4
    assert (state[2].count, state[2].accumulated_update.w) == (0, 0.0)


def test_equals_optax_with_bfloat16_variables_and_momentum():
    """The sum is in float32, and states keep their types."""
    optimizer = accumulator(
        pax_fiddle.Config(optimizers.ShardedSgd, momentum=0.9), num_sub_batches=2
    )
    ours = optimizer.get_grad_transformation()
    theirs = optax.MultiSteps(optax.sgd(1.0, 0.9), 2)
    params = {"w": jnp.ones([3], jnp.bfloat16)}
    our_state, their_state = ours.init(params), theirs.init(params)
    types = jax.tree.map(lambda x: x.dtype, our_state)
    our_update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
    for count in range(4):
        grads = {"w": jnp.asarray([1.0, 2.0, 3.0], jnp.bfloat16) * (count + 1)}
        our_updates, our_state = our_update(grads, our_state, params)
        their_updates, their_state = their_update(grads, their_state, params)
        np.testing.assert_allclose(
            our_updates["w"].astype(jnp.float32),
            their_updates["w"].astype(jnp.float32),
            rtol=2e-2,  # bfloat16
        )
        assert jax.tree.map(lambda x: x.dtype, our_state) == types


def test_under_vmap_each_row_counts_for_itself():
    tx = optimizers.sharded_static_accumulation(2, optimizers.sharded_sgd(lambda _: 1.0))
    state = jax.vmap(tx.init)(jnp.zeros([3]))
    state.count = jnp.asarray([0, 1, 0])
    updates, state = jax.vmap(lambda u, s: tx.update(u, s))(jnp.ones([3]), state)
    assert updates.tolist() == [0.0, -0.5, 0.0]
    assert state.count.tolist() == [1, 0, 1]


def test_schedule_and_learning_rate_of_the_inner_optimizer():
    """The inner schedule comes first, and counts emissions; the outer rate comes first."""
    ramp = pax_fiddle.Config(schedules.Linear, start=(0, 1.0), limit=(10, 11.0))
    inner = pax_fiddle.Config(optimizers.Sgd, learning_rate=0.5, lr_schedule=ramp)
    outer_rate = accumulator(inner, learning_rate=0.25)
    inner_rate = accumulator(inner, learning_rate=0.0, num_sub_batches=2)
    np.testing.assert_allclose(outer_rate.get_learning_rate(1), 0.5)
    np.testing.assert_allclose(inner_rate.get_learning_rate(1), 1.0)
    assert inner_rate.base_optimizer.learning_rate == 0.5
    assert accumulator().base_optimizer.lr_schedule is not None
    transform = inner_rate.get_grad_transformation()
    state, steps = transform.init(jnp.float32(0)), []
    for _ in range(4):
        updates, state = transform.update(jnp.float32(1), state)
        steps.append(float(updates))
    assert steps == [0.0, -0.5, 0.0, -1.0]
    assert inner.learning_rate == 0.5  # templates are not edited


def test_decay_of_the_wrapper_acts_in_every_step():
    inner = pax_fiddle.Config(optimizers.Sgd, decoupled_weight_decay=0.5)
    transform = accumulator(
        inner, num_sub_batches=2, decoupled_weight_decay=0.1
    ).get_grad_transformation()
    updates, _ = transform.update(jnp.float32(0), transform.init(jnp.float32(1)), jnp.float32(1))
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer_tpl": None}, "optimizer_tpl is None. Set it in the config"),
        ({"num_sub_batches": 0}, "num_sub_batches is 0, expected at least 1"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    config = {"optimizer_tpl": pax_fiddle.Config(optimizers.Sgd), **fields}
    with pytest.raises(ValueError, match=f"ShardedStaticAccumulator: {message}"):
        build(optimizers.ShardedStaticAccumulator, **config)
    with pytest.raises(ValueError, match="sharded_static_accumulation: num_sub_batches is 0"):
        optimizers.sharded_static_accumulation(0, optax.sgd(1.0))

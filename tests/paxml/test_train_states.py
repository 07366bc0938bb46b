import jax
import jax.numpy as jnp
import numpy as np

from paxml import train_states
from paxml.train_states import TensorProvenance


def state():
    return train_states.TrainState(
        step=jnp.uint32(4),
        mdl_vars={"params": {"w": jnp.ones([3])}},
        opt_states=[(jnp.zeros([3]),)],
        extra_state=(jnp.ones([]),),
    )


def test_new_state_is_one_step_later():
    new = jax.jit(lambda s: s.new_state(s.mdl_vars, s.opt_states))(state())
    assert (int(new.step), new.step.dtype) == (5, jnp.uint32)
    assert new.extra_state == ()
    np.testing.assert_array_equal(new.mdl_vars["params"]["w"], 1.0)


def test_eval_state_has_no_optimizer_state():
    new = state().to_eval_state()
    assert (new.opt_states, new.extra_state) == ([], ())
    assert int(new.step) == 4


def test_provenance_mirrors_the_state():
    provenance = train_states.build_train_state_provenance(state(), "run/checkpoints", 7)
    assert provenance.mdl_vars == {"params": {"w": TensorProvenance("run/checkpoints", 7)}}
    assert provenance.opt_states == [(TensorProvenance("run/checkpoints", 7),)]
    fresh = train_states.build_train_state_provenance(state())
    assert fresh.step == TensorProvenance()
    assert fresh.replace(step=provenance.step).step.checkpoint_step == 7


def test_provenance_reads_as_text():
    assert repr(TensorProvenance()) == '"random_init"'
    assert repr(TensorProvenance("dir", 7)) == '"(dir:7)"'
    assert repr(TensorProvenance("dir")) == '"(dir:latest)"'

"""Rematerialization policies: what each keeps for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from praxis.layers.transformer.remat import SAVED_NAMES, AutodiffCheckpointType, custom_policy

X = jnp.float32(np.random.default_rng(0).standard_normal([2, 3]))
W = jnp.float32(np.random.default_rng(1).standard_normal([3, 3]))


def count_ops(function, name):
    """How often a primitive is in the gradient, the rematerialized body included."""
    return str(jax.make_jaxpr(jax.grad(function))(X)).count(name + "[") + str(
        jax.make_jaxpr(jax.grad(function))(X)
    ).count(f"= {name} ")


def body(name):
    def function(x):
        return jnp.sum(jnp.sin(checkpoint_name(jnp.sin(x @ W), name)))

    return function


@pytest.mark.parametrize("policy", list(AutodiffCheckpointType))
def test_gradients_do_not_depend_on_the_policy(policy):
    function = jax.checkpoint(body("context"), policy=custom_policy(policy))
    np.testing.assert_allclose(
        jax.grad(function)(X), jax.grad(body("context"))(X), rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("policy", list(SAVED_NAMES))
@pytest.mark.parametrize(
    "name",
    ["context", "out_proj", "combined_qkv_proj", "key_proj", "ffn1", "ffn1_gate", "conv_0"],
)
def test_policies_by_name_keep_their_names_only(policy, name):
    saves = custom_policy(policy)
    kept = count_ops(jax.checkpoint(body(name), policy=saves), "sin")
    nothing = count_ops(
        jax.checkpoint(body(name), policy=jax.checkpoint_policies.nothing_saveable), "sin"
    )
    everything = count_ops(
        jax.checkpoint(body(name), policy=jax.checkpoint_policies.save_only_these_names(name)),
        "sin",
    )
    assert everything < nothing
    assert kept == (everything if name in SAVED_NAMES[policy] else nothing)


def test_a_policy_can_be_given_by_value():
    assert custom_policy("save_nothing") is custom_policy(AutodiffCheckpointType.SAVE_NOTHING)


def test_a_member_shows_as_a_member():
    assert str(AutodiffCheckpointType.SAVE_NOTHING) == "AutodiffCheckpointType.SAVE_NOTHING"


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"checkpoint_policy is 'save_all', .*'save_everything'"):
        custom_policy("save_all")


def test_gates_are_saved_with_the_products_of_the_feed_forward():
    """9.8: SAVE_DOT_EXCEPT_LOGITS saves the gate of a gated feed-forward too (improve)."""
    policies = (
        AutodiffCheckpointType.SAVE_DOT_EXCEPT_LOGITS,
        AutodiffCheckpointType.SAVE_DOT_EXCEPT_LOGITS_FFN1,
    )
    assert ["ffn1_gate" in SAVED_NAMES[policy] for policy in policies] == [True, False]
    runs = [jax.checkpoint(body("ffn1_gate"), policy=custom_policy(policy)) for policy in policies]
    saves, computes_again = (count_ops(run, "sin") for run in runs)
    assert saves < computes_again

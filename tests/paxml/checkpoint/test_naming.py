"""Names of leaves on disk (trainer behaviour 86)."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
import pytest

from paxml.checkpoint.naming import look_up, named_leaves, nest


class Moments(NamedTuple):
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  # Optax's name
    m: dict


def test_names_of_a_state_with_a_chain_of_transformations():
    """An index is appended to the key before it; masked leaves have no name."""
    params = {"params": {"lin": {"w": 1, "b": optax.MaskedNode()}}}
    chain = (Moments(1, params), Moments(2, {}))
    groups = {"no_prefix": [Moments(3, params)], "p#4#i-1": [Moments(4, {})]}
    assert list(named_leaves({"step": 0, "mdl_vars": params, "opt_states": [chain]})) == [
        "mdl_vars.params.lin.w",
        "opt_states_0_0.count",
        "opt_states_0_0.m.params.lin.w",
        "opt_states_0_1.count",
        "step",
    ]
    assert list(named_leaves({"opt_states": [groups]})) == [
        "opt_states_0.no_prefix_0.count",
        "opt_states_0.no_prefix_0.m.params.lin.w",
        "opt_states_0.p#4#i-1_0.count",
    ]


def test_optax_state():
    state = optax.adam(0.1).init({"w": jnp.ones(3)})
    assert list(named_leaves([state])) == ["_0_0.count", "_0_0.mu.w", "_0_0.nu.w"]


def test_nesting_keeps_every_leaf():
    named = {"a.b.c": 1, "a.b.d": 2, "e": 3}
    assert {name: look_up(nest(named), name) for name in named} == named


def test_clashes_are_refused():
    with pytest.raises(ValueError, match=r"both named 'a_0' on disk.*\['a_0'\]"):
        named_leaves({"a": [1], "a_0": 2})
    for names in (["a.b", "a"], ["a", "a.b"]):
        with pytest.raises(ValueError, match="share the beginning of a name"):
            nest(dict.fromkeys(names, 1))

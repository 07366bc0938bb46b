"""The moving average of the weights, as a state to evaluate."""

from collections.abc import Mapping
from typing import Any

import jax

from paxml.task.state import is_vectorized
from paxml.train_states import TrainState
from praxis.optim.trees import is_masked
from praxis.utils.trees import BpropMaskedNode, is_bprop_masked_node, is_optax_masked_node

EMA = "ema"


def extract_ema(model_states: TrainState, merge_for_bprop_exclusion: bool = True) -> TrainState:
    """The state whose variables are the averages that the optimizer keeps.

    Works on values, shapes and shardings alike. In a state grouped by stacks of layers, each
    average comes from the group of its variable.

    Args:
      model_states: State with the optimizer state of one learner.
      merge_for_bprop_exclusion: Whether variables without an average, those that a rule excludes
        from training, keep their plain value; else they are `BpropMaskedNode`.

    Returns:
      The state of the same step, without optimizer state. Other masked leaves are None.

    Raises:
      ValueError: if there is not exactly one optimizer state, or if it holds no average.
    """
    if len(model_states.opt_states) != 1:
        raise ValueError(
            f"extract_ema: the state has {len(model_states.opt_states)} optimizer states, expected "
            "the one of a single learner. Pass the whole train state, before to_eval_state()."
        )
    if is_vectorized(model_states):
        average = _merge([_find_ema(group) for group in model_states.opt_states[0].values()])
    else:
        average = _find_ema(model_states.opt_states[0])

    def value(leaf: Any, variable: Any) -> Any:
        if is_bprop_masked_node(leaf):
            return variable if merge_for_bprop_exclusion else BpropMaskedNode()
        return None if is_optax_masked_node(leaf) else leaf

    mdl_vars = jax.tree.map(value, average, model_states.mdl_vars, is_leaf=is_masked)
    return TrainState(step=model_states.step, mdl_vars=mdl_vars, opt_states=[], extra_state=())


def _find_ema(opt_state: Any) -> Any:
    """The averages in the state of a chain of transformations."""
    members = opt_state if isinstance(opt_state, tuple | list) else (opt_state,)
    for member in members:
        if isinstance(member, Mapping) and EMA in member:
            return member[EMA]
    raise ValueError(
        "The optimizer state holds no moving average of the weights. Train with "
        "train.learner.optimizer.ema_decay above 0, e.g. 0.9999, or use the plain weights."
    )


def _merge(groups: list[Any]) -> Any:
    """Each average from the group in which it is not masked."""

    def own(*leaves: Any) -> Any:
        return next((leaf for leaf in leaves if not is_optax_masked_node(leaf)), leaves[0])

    return jax.tree.map(own, *groups, is_leaf=is_masked)

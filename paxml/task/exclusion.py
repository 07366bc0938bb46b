"""Which variables get gradients, and which get optimizer state.

A mask is a tree of booleans in the structure of the variables; True excludes. An excluded leaf of
a gradient or optimizer tree is a `BpropMaskedNode`.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from praxis import base_layer
from praxis.utils import trees

Mask = Any


class ExclusionMasks(NamedTuple):
    """Masks of the variables without gradient, and of those without optimizer state."""

    grad: Mask
    opt: Mask


def get_excluded_var_masks(var_weight_hparams: Any, learner: Any) -> ExclusionMasks:
    """Both masks of a model."""
    return ExclusionMasks(
        get_excluded_var_mask_for_grad(var_weight_hparams, learner),
        get_excluded_var_mask_for_opt(var_weight_hparams, learner),
    )


def get_excluded_var_mask_for_grad(var_weight_hparams: Any, learner: Any) -> Mask:
    """True where a variable is excluded by the learner's rules, or not trainable."""
    return get_excluded_var_mask_for_grad_or_opt(
        var_weight_hparams, learner, mask_all_non_trainable=True
    )


def get_excluded_var_mask_for_opt(var_weight_hparams: Any, learner: Any) -> Mask:
    """True where a variable has no optimizer state.

    With a moving average of the weights, variables that are not trainable have an entry too.
    """
    if learner.keep_optimizer_state_for_excluded_vars:
        return jax.tree.map(lambda _: False, var_weight_hparams)
    return get_excluded_var_mask_for_grad_or_opt(
        var_weight_hparams,
        learner,
        mask_all_non_trainable=not learner_has_ema(learner),
        mask_all_overwrite_with_gradient=True,
    )


def get_excluded_var_mask_for_grad_or_opt(
    var_weight_hparams: Any,
    learner: Any,
    mask_all_non_trainable: bool,
    mask_all_overwrite_with_gradient: bool = False,
) -> Mask:
    """True where a rule of the learner or one of the two arguments excludes a variable."""

    def is_excluded(by_rule: bool, hparams: base_layer.WeightHParams) -> bool:
        frozen = mask_all_non_trainable and base_layer.var_not_trainable(hparams)
        overwritten = mask_all_overwrite_with_gradient and base_layer.var_overwrite_with_gradient(
            hparams
        )
        return by_rule or frozen or overwritten

    by_rule = get_excluded_by_rule(var_weight_hparams, learner)
    return jax.tree.map(is_excluded, by_rule, var_weight_hparams)


def get_excluded_by_rule(var_weight_hparams: Any, learner: Any) -> Mask:
    """True where the learner's inclusion or exclusion patterns leave a variable out.

    Patterns match the whole path, e.g. `params/lm/softmax/.*`.

    Raises:
      ValueError: if the learner has patterns of both kinds.
    """
    exclusion = _as_list(learner.bprop_variable_exclusion)
    inclusion = _as_list(learner.bprop_variable_inclusion)
    if exclusion and inclusion:
        raise ValueError(
            f"Learner {learner.name!r}: bprop_variable_exclusion = {exclusion} and "
            f"bprop_variable_inclusion = {inclusion} are both set. Keep one of them."
        )
    field = "bprop_variable_inclusion" if inclusion else "bprop_variable_exclusion"
    for pattern in inclusion or exclusion:
        if not any(jax.tree.leaves(trees.fullmatch_path(var_weight_hparams, pattern))):
            names = jax.tree.leaves(trees.to_path_tree(var_weight_hparams))
            warnings.warn(
                f"Learner {learner.name!r}: {field} pattern {pattern!r} matches no variable. It "
                f"must match a whole name; there are {', '.join(names[:3])}.",
                stacklevel=2,
            )
    if inclusion:
        included = trees.fullmatch_path(var_weight_hparams, inclusion)
        return jax.tree.map(lambda match: not match, included)
    return trees.fullmatch_path(var_weight_hparams, exclusion)


def filter_vars_for_grad_or_opt(mdl_vars: Any, excluded_for_grad: Mask) -> Any:
    """The same tree with a `BpropMaskedNode` in place of each excluded leaf."""
    return jax.tree.map(
        lambda excluded, leaf: trees.BpropMaskedNode() if excluded else leaf,
        excluded_for_grad,
        mdl_vars,
    )


def merge_vars(excluded: Mask, kept: Any, others: Any) -> Any:
    """Takes each leaf from `others` where `excluded` is True, else from `kept`."""
    return jax.tree.map(
        lambda is_excluded, one, other: other if is_excluded else one, excluded, kept, others
    )


def learner_has_ema(learner: Any) -> bool:
    """Whether a learner, built or a config, keeps a moving average of the weights."""
    return bool(learner.optimizer is not None and learner.optimizer.ema_decay > 0)


def has_ema(task: Any) -> bool:
    """Whether a task, built or a config, keeps a moving average of the weights."""
    return learner_has_ema(task.train.learner)


def _as_list(patterns: str | Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)

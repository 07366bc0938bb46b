"""One update of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paxml.learner.forward import ForwardResult
from paxml.learner.learner import Learner
from paxml.task import exclusion
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer import dtypes
from paxml.trainer.forward import make_grad_fn, make_loss_fn
from paxml.trainer.types import (
    ApplyFnProtocol,
    BaseStepFnStaticArgs,
    GradFnProtocol,
    StepFnOutput,
)
from praxis import base_layer
from praxis.utils import trees


class _Applied(NamedTuple):
    """Variables and optimizer state after the learner, and whether it used the gradients."""

    new_vars: Any
    opt_state: Any
    is_valid: Any


def train_step_single_learner(
    jax_task: SingleTask,
    states: TrainState,
    prng_key: jax.Array,
    inputs: Any,
    fprop_dtype: Any = jnp.float32,
    var_weight_hparams: Any = None,
    static_args: BaseStepFnStaticArgs | None = None,
    *,
    grad_fn: GradFnProtocol | None = None,
    apply_fn: ApplyFnProtocol | None = None,
    expose_updated_nontrainables_to_learner: bool = True,
) -> tuple[TrainState, StepFnOutput]:
    """Computes loss and gradients on a global batch and applies the learner.

    Args:
      jax_task: Model, learner and settings.
      states: State before the step.
      prng_key: The run's training key; the step number is folded in here.
      inputs: Global batch.
      fprop_dtype: Dtype of the forward pass, float32 or bfloat16.
      var_weight_hparams: `WeightHParams` of the variables; found when missing.
      static_args: Not used here.
      grad_fn: Differentiates the loss; None is plain gradients or the learner's stochastic ones.
      apply_fn: Runs the model; None is `model.apply`.
      expose_updated_nontrainables_to_learner: Whether the optimizer sees non-trainable variables
        as this step's forward pass left them.

    Returns:
      State after the step, and the loss and metrics computed with the weights before it.
    """
    del static_args
    learner = jax_task.learners[0]
    if var_weight_hparams is None:
        var_weight_hparams = jax_task.model.abstract_init_with_metadata(inputs)
    prng_key = jax.random.fold_in(prng_key, states.step)
    excluded = exclusion.get_excluded_var_mask_for_grad(var_weight_hparams, learner)
    context = base_layer.JaxContext.HParams(
        do_eval=False, summary_verbosity=jax_task.summary_verbosity
    )
    with base_layer.JaxContext.new_context(hparams=context):
        loss_vars = jax_task.maybe_adjust_train_state(
            states.step, states.mdl_vars, var_weight_hparams, prng_key
        )
        _, loss_key = jax.random.split(prng_key)
        loss_fn = make_loss_fn(
            jax_task,
            var_weight_hparams=var_weight_hparams,
            fprop_dtype=fprop_dtype,
            apply_fn=apply_fn,
        )
        (_, aux), grads = (grad_fn or make_grad_fn(excluded))(
            loss_fn, learner, loss_vars, inputs, loss_key
        )
        forward: ForwardResult = aux.aux_info

        learner.plot_learning_rate(states.step)
        after_forward = _with_updated(states.mdl_vars, forward.updated_vars)
        seen_by_learner = (
            after_forward if expose_updated_nontrainables_to_learner else states.mdl_vars
        )
        applied = _apply_learner(
            learner, var_weight_hparams, excluded, grads, states.opt_states[0], seen_by_learner
        )
        by_rule = exclusion.get_excluded_by_rule(var_weight_hparams, learner)
        mdl_vars = _next_vars(
            excluded, by_rule, applied, old=states.mdl_vars, forward=after_forward
        )
        if jax_task.train.variable_norm_summary:
            _summarize_variables(mdl_vars)
        global_summaries = dict(base_layer.all_global_summaries())

    new_state = states.new_state(mdl_vars=mdl_vars, opt_states=[applied.opt_state], extra_state=())
    return new_state, StepFnOutput(
        loss=forward.mean_loss,
        weighted_scalars=forward.weighted_scalars,
        per_example_out=forward.per_example_out,
        summary_tensors={
            **forward.updated_vars.get(base_layer.SUMMARIES, {}),
            **forward.summaries,
            **global_summaries,
        },
        clu_metrics=forward.clu_metrics,
    )


def _apply_learner(
    learner: Any,
    var_weight_hparams: Any,
    excluded: exclusion.Mask,
    grads: Any,
    opt_state: Any,
    mdl_vars: Any,
) -> _Applied:
    """Runs the optimizer over the variables that are trained or have optimizer state."""
    outside = jax.tree.map(
        lambda no_grad, no_opt: no_grad and no_opt,
        excluded,
        exclusion.get_excluded_var_mask_for_opt(var_weight_hparams, learner),
    )
    # Variables with optimizer state but no gradient, such as averaged moments, see zeros.
    grads = jax.tree.map(
        lambda no_grad, grad, leaf: jnp.zeros_like(leaf) if no_grad else grad,
        excluded,
        grads,
        mdl_vars,
    )
    grads, own_vars, own_hparams = (
        exclusion.filter_vars_for_grad_or_opt(tree, outside)
        for tree in (grads, mdl_vars, var_weight_hparams)
    )
    is_valid = True
    if type(learner).update_states is Learner.update_states:
        updates, new_state, is_valid = learner.checked_update(
            grads, opt_state, own_vars, own_hparams
        )
    else:  # a user's learner, of which only this method is known
        updates, new_state = learner.update_states(grads, opt_state, own_vars, own_hparams)
    new_vars = learner.apply_gradient(own_vars, updates, own_hparams)
    skips = learner.enable_skip_step_on_gradient_anomalies
    return _Applied(new_vars, new_state, is_valid if skips else True)


def _next_vars(
    excluded: exclusion.Mask, by_rule: exclusion.Mask, applied: _Applied, *, old: Any, forward: Any
) -> Any:
    """The learner's values where there is a gradient, else those of the forward pass.

    Variables that a rule excludes keep their old value, and so does everything in a step that is
    skipped: its forward pass may have left NaN in running statistics.
    """
    forward = exclusion.merge_vars(by_rule, forward, old)
    if applied.is_valid is not True:
        forward = jax.tree.map(
            lambda new, kept: jnp.where(applied.is_valid, new, kept), forward, old
        )
    return exclusion.merge_vars(excluded, applied.new_vars, forward)


def _with_updated(mdl_vars: Any, updated: Any) -> Any:
    """Variables with the collections that the forward pass changed, in their stored dtypes.

    Raises:
      ValueError: if the forward pass returned another structure than the variables have.
    """
    changed = {}
    for name, old in mdl_vars.items():
        if name == base_layer.PARAMS or name not in updated:
            continue
        new = base_layer.maybe_unbox_value(updated[name])
        if jax.tree.structure(new) != jax.tree.structure(old):
            raise ValueError(
                f"The model changed the structure of collection {name!r} in a step: it had "
                f"{jax.tree.structure(old)}, now {jax.tree.structure(new)}."
            )
        changed[name] = dtypes.cast_like(new, old)
    return {**mdl_vars, **changed}


def _summarize_variables(mdl_vars: Any) -> None:
    """Root mean square of each variable after the step."""

    def summarize(path: Any, leaf: jax.Array) -> None:
        mean_square = jnp.mean(jnp.square(leaf.astype(jnp.float32)))
        base_layer.add_global_summary(f"vars/{trees.path_text(path)}", jnp.sqrt(mean_square))

    jax.tree_util.tree_map_with_path(summarize, mdl_vars)

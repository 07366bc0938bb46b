"""The loss of a task as a function of variables and batch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from paxml.learner.accumulate import accumulated_value_and_grad
from paxml.learner.forward import ForwardResult
from paxml.learner.gradient import GradAuxInfo, StandardGradient
from paxml.task.exclusion import Mask, filter_vars_for_grad_or_opt, merge_vars
from paxml.task.single_task import SingleTask
from paxml.trainer import dtypes
from paxml.trainer.types import ApplyFnProtocol, GradFnProtocol, LossFnProtocol
from praxis import base_layer


def apply_model(model: Any, variables: Any, inputs: Any, mutable: Any, rngs: Any) -> Any:
    """Runs the model on a batch; the default of a step's `apply_fn`."""
    return model.apply(variables, inputs, mutable=mutable, rngs=rngs)


def make_rngs(params: jax.Array, random: jax.Array, non_pax: jax.Array) -> dict[str, jax.Array]:
    """Keys by the names of the model's streams of random numbers."""
    return {
        base_layer.PARAMS: params,
        base_layer.RANDOM: random,
        base_layer.NON_PAX_RNG_KEY: non_pax,
    }


def make_loss_fn(
    task: SingleTask,
    *,
    var_weight_hparams: Any,
    fprop_dtype: Any,
    apply_fn: ApplyFnProtocol | None = None,
) -> LossFnProtocol:
    """The function that a training step differentiates."""
    apply = apply_fn or apply_model
    settings = base_layer.JaxContext.HParams(
        do_eval=False, summary_verbosity=task.summary_verbosity
    )

    def loss_fn(mdl_vars: Any, inputs: Any, prng_key: jax.Array) -> tuple[jax.Array, GradAuxInfo]:
        # Casting inside makes gradients come back in the dtype of the variables.
        variables = dtypes.cast_variables(mdl_vars, var_weight_hparams, fprop_dtype)
        inputs = dtypes.cast_inputs(inputs, fprop_dtype)
        with base_layer.JaxContext.new_context(hparams=settings):
            (metrics, per_example_out), updated = apply(
                task.model,
                variables,
                inputs,
                mutable=list(task.train.apply_mutable_list),
                rngs=make_rngs(*jax.random.split(prng_key, 3)),
            )
            summaries = dict(base_layer.all_global_summaries())
        weighted_scalars, clu_metrics = split_metrics(metrics)
        loss, mean_loss, loss_weight = task.loss_aggregator_inst.aggregate(metrics)
        result = ForwardResult(
            mean_loss=jnp.asarray(mean_loss).astype(jnp.float32),
            weighted_scalars=weighted_scalars,
            clu_metrics=clu_metrics,
            per_example_out=per_example_out,
            updated_vars=updated,
            summaries=summaries,
        )
        return loss.astype(jnp.float32), GradAuxInfo(aux_info=result, loss_weight=loss_weight)

    return loss_fn


def make_grad_fn(excluded: Mask) -> GradFnProtocol:
    """Gradients of the variables that are not excluded; the others get a masked node."""

    def grad_fn(
        loss_fn: LossFnProtocol, learner: Any, mdl_vars: Any, inputs: Any, prng_key: jax.Array
    ) -> tuple[tuple[jax.Array, Any], Any]:
        with_grad = filter_vars_for_grad_or_opt(mdl_vars, excluded)
        no_grad = filter_vars_for_grad_or_opt(mdl_vars, jax.tree.map(lambda x: not x, excluded))

        def loss(vars_grad: Any, vars_nograd_and_inputs: Any, key: jax.Array) -> Any:
            vars_nograd, batch = vars_nograd_and_inputs
            return loss_fn(merge_vars(excluded, vars_grad, vars_nograd), batch, key)

        if learner.num_microbatches > 1:
            return accumulated_value_and_grad(
                loss,
                with_grad,
                no_grad,
                inputs,
                prng_key,
                num_microbatches=learner.num_microbatches,
            )
        gradient = learner.stochastic_gradient or StandardGradient()
        return gradient.grad_fn(loss, with_grad, (no_grad, inputs), prng_key)

    return grad_fn


def split_metrics(metrics: Any) -> tuple[Any, dict[str, Any]]:
    """Metrics of a model as (weighted scalars, metric objects), one of them empty.

    Raises:
      TypeError: if they are no mapping, none at all, of another kind, or of both kinds.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise TypeError(
            f"The model returned {metrics!r} as metrics, expected at least one, by name: either "
            "(value, weight) pairs or objects with merge() and compute()."
        )
    kinds = {name: _kind(name, metric) for name, metric in metrics.items()}
    first_name, first = next(iter(kinds.items()))
    for name, kind in kinds.items():
        if kind != first:
            raise TypeError(
                f"The model's metric {name!r} is {kind}, but {first_name!r} is {first}. Return "
                "metrics of one kind."
            )
    return ({}, dict(metrics)) if first == "an object with compute()" else (metrics, {})


def _kind(name: str, metric: Any) -> str:
    if isinstance(metric, tuple | list) and len(metric) == 2:
        return "a (value, weight) pair"
    if hasattr(metric, "merge") and hasattr(metric, "compute"):
        return "an object with compute()"
    raise TypeError(
        f"The model's metric {name!r} is a {type(metric).__name__}, expected a (value, weight) "
        "pair or an object with merge() and compute()."
    )

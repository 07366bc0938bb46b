"""One evaluation or decoding of a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer import dtypes
from paxml.trainer.forward import make_rngs, split_metrics
from paxml.trainer.types import BaseStepFnStaticArgs, StepFnOutput
from praxis import base_layer

PROVENANCE_PREFIX = "_seqio_provenance"
DECODE_VERBOSITY = 2


def eval_step_single_learner(
    jax_task: SingleTask,
    states: TrainState,
    prng_key: jax.Array,
    inputs: Any,
    fprop_dtype: Any = jnp.float32,
    var_weight_hparams: Any = None,
    static_args: BaseStepFnStaticArgs | None = None,
) -> tuple[None, StepFnOutput]:
    """Loss and metrics of a global batch in evaluation mode; the state is only read.

    Args:
      jax_task: Model and settings.
      states: State; the optimizer part is not used.
      prng_key: Evaluation key of the run; the step number is folded in here, so all batches of an
        evaluation share one key.
      inputs: Global batch. Keys that start with `_seqio_provenance` bypass the model.
      fprop_dtype: Dtype of the forward pass, float32 or bfloat16.
      var_weight_hparams: `WeightHParams` of the variables; found when missing.
      static_args: Not used here.

    Returns:
      None in place of a new state, and the results.
    """
    del static_args
    inputs, provenance = split_provenance(inputs)
    if var_weight_hparams is None:
        var_weight_hparams = jax_task.model.abstract_init_with_metadata(inputs, do_eval=True)
    keys = jax.random.split(jax.random.fold_in(prng_key, states.step), 4)
    context = base_layer.JaxContext.HParams(
        do_eval=True, summary_verbosity=jax_task.summary_verbosity
    )
    with base_layer.JaxContext.new_context(hparams=context):
        (metrics, per_example_out), updated = jax_task.model.apply(
            dtypes.cast_variables(states.mdl_vars, var_weight_hparams, fprop_dtype),
            dtypes.cast_inputs(inputs, fprop_dtype),
            mutable=list(jax_task.evaluate.apply_mutable_list),
            rngs=make_rngs(*keys[1:]),
        )
        summaries = {
            **updated.get(base_layer.SUMMARIES, {}),
            **base_layer.all_global_summaries(),
        }
    weighted_scalars, clu_metrics = split_metrics(metrics)
    _, mean_loss, _ = jax_task.loss_aggregator_inst.aggregate(metrics)
    output = StepFnOutput(
        loss=jnp.asarray(mean_loss).astype(jnp.float32),
        weighted_scalars=weighted_scalars,
        per_example_out={**per_example_out, **provenance},
        summary_tensors=summaries,
        clu_metrics=clu_metrics,
    )
    return None, dtypes.widen(output) if fprop_dtype == jnp.bfloat16 else output


def decode_step(
    model: Any,
    states: TrainState,
    prng_key: jax.Array,
    var_weight_hparams: Any,
    inputs: Any,
    fprop_dtype: Any = jnp.float32,
    apply_mutable_list: Any = (base_layer.DECODE_CACHE, base_layer.SUMMARIES),
    decode_method: str = "decode",
) -> tuple[tuple[Any, Any, Any], Any]:
    """Decodes a global batch; the state is only read.

    Args:
      model: The model.
      states: State without an optimizer part.
      prng_key: Decoding key of the run; the step number is folded in here.
      var_weight_hparams: `WeightHParams` of the variables.
      inputs: Global batch.
      fprop_dtype: Dtype of the forward pass, float32 or bfloat16.
      apply_mutable_list: Variable collections that decoding may change.
      decode_method: Name of the model's method.

    Returns:
      (weighted scalars, per-example results, metric objects), and the summaries.

    Raises:
      ValueError: if the state has an optimizer part.
    """
    if states.opt_states:
        raise ValueError("decode_step: the state has an optimizer part; pass to_eval_state().")
    inputs, provenance = split_provenance(inputs)
    keys = jax.random.split(jax.random.fold_in(prng_key, states.step), 3)
    context = base_layer.JaxContext.HParams(do_eval=True, summary_verbosity=DECODE_VERBOSITY)
    with base_layer.JaxContext.new_context(hparams=context):
        result, updated = model.apply(
            dtypes.cast_variables(states.mdl_vars, var_weight_hparams, fprop_dtype),
            dtypes.cast_inputs(inputs, fprop_dtype),
            method=getattr(model, decode_method),
            mutable=list(apply_mutable_list),
            rngs=make_rngs(*keys),
        )
    weighted_scalars, per_example_out, *metrics = result
    per_example_out.update(provenance)
    out = (weighted_scalars, per_example_out, metrics[0] if metrics else {})
    return out, dtypes.widen(updated.get(base_layer.SUMMARIES, {}))


def decode_step_single_learner(
    jax_task: SingleTask,
    states: TrainState,
    prng_key: jax.Array,
    inputs: Any,
    fprop_dtype: Any = jnp.float32,
    var_weight_hparams: Any = None,
    static_args: BaseStepFnStaticArgs | None = None,
) -> tuple[None, StepFnOutput]:
    """`decode_step` with the arguments and results of the other steps; there is no loss."""
    del static_args
    if var_weight_hparams is None:
        var_weight_hparams = jax_task.model.abstract_init_with_metadata(inputs, do_eval=True)
    (weighted_scalars, per_example_out, metrics), summaries = decode_step(
        jax_task.model,
        states,
        prng_key,
        var_weight_hparams,
        inputs,
        fprop_dtype,
        jax_task.decode.apply_mutable_list,
    )
    return None, StepFnOutput(
        loss=None,
        weighted_scalars=weighted_scalars,
        per_example_out=per_example_out,
        summary_tensors=summaries,
        clu_metrics=metrics,
    )


def split_provenance(inputs: Any) -> tuple[Any, dict[str, Any]]:
    """A batch without the entries that identify examples, and those entries."""
    provenance = {key: inputs[key] for key in inputs if key.startswith(PROVENANCE_PREFIX)}
    if not provenance:
        return inputs, {}
    return type(inputs)({key: inputs[key] for key in inputs if key not in provenance}), provenance

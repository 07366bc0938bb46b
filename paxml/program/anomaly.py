"""Steps that cannot be used: counting them, stopping, and finding where the numbers went wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn
from flax.core import tracers

from paxml.partitioning.base import Partitioner
from paxml.task import exclusion
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer.forward import apply_model, make_grad_fn, make_loss_fn
from paxml.trainer.types import BaseStepFnStaticArgs, StepFnOutput
from praxis import base_layer
from praxis.utils import trees

_VALID = "is_valid_step"
_SHOWN = 3

Diagnose = Callable[[int], str]


class UnusableStepsError(FloatingPointError):
    """Too many steps in a row were skipped, or had a loss that is not finite."""


class AnomalyWatch:
    """Counts steps that were skipped, or whose loss is NaN or infinite.

    Attributes:
      total: How many there were since the start of this process.
      in_a_row: How many of them are the latest steps.
    """

    def __init__(self, task: SingleTask) -> None:
        """Takes the limit from `task.train.stop_after_skipped_steps`."""
        self._name = task.name
        self._limit = task.train.stop_after_skipped_steps
        self._skips = all(one.enable_skip_step_on_gradient_anomalies for one in task.learners)
        self.total = 0
        self.in_a_row = 0

    def check(self, step: int, out: StepFnOutput, diagnose: Diagnose) -> None:
        """Looks at the results of a step, which must be computed.

        Args:
          step: Number of updates after it.
          out: Its results.
          diagnose: Says what is not finite in a step.

        Raises:
          UnusableStepsError: at the limit.
        """
        flags = {key: value for key, value in (out.summary_tensors or {}).items() if _VALID in key}
        loss, flags = jax.device_get((out.loss, flags))
        if np.all(np.isfinite(loss)) and all(np.all(value) for value in flags.values()):
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        logging.warning(
            "Step %d %s: loss %g. %d such steps in a row, %d since the start.",
            *(step, "was skipped" if self._skips else "changed the weights though not finite"),
            *(np.mean(loss), self.in_a_row, self.total),
        )
        if self._limit and self.in_a_row >= self._limit:
            what = "were skipped" if self._skips else "were not finite and changed the weights"
            raise UnusableStepsError(
                f"Task {self._name!r}: the last {self.in_a_row} steps, up to step {step}, {what}, "
                f"as many as train.stop_after_skipped_steps = {self._limit} allows; loss "
                f"{np.mean(loss):g}. {diagnose(step)} Nothing was saved after the last checkpoint. "
                "Correct the data or the model, or set train.stop_after_skipped_steps = 0 to go "
                "on regardless."
            )


def diagnose(
    task: SingleTask,
    partitioner: Partitioner,
    state: TrainState,
    key: jax.Array,
    batch: Any,
    static_args: BaseStepFnStaticArgs,
) -> str:
    """Says what is first not finite in a step: batch, variables, outputs of layers, gradients.

    Args:
      task: The task.
      partitioner: Its partitioner.
      state: State before the step.
      key: The run's training key.
      batch: Batch of the step, on the devices.
      static_args: As for the step.
    """
    names: list[str] = []

    def count(
        task: Any, state: Any, key: Any, batch: Any, dtype: Any, hparams: Any, static_args: Any
    ) -> tuple[None, list[jax.Array]]:
        del static_args
        found = list(_counts(task, state, key, batch, dtype, hparams))
        names[:] = [name for name, _ in found]
        return None, [number for _, number in found]

    # Not quite a step: it gives numbers in place of a loss.
    step_fn: Any = count
    run, _ = partitioner.partition(step_fn, trees.get_shape_dtype(batch), is_eval=True)
    _, counts = run(state.to_eval_state(), key, batch, static_args)
    bad = [
        f"{name} ({number} of them)"
        for name, number in zip(names, jax.device_get(counts), strict=True)
        if number
    ]
    if not bad:
        return "Batch, variables, outputs of layers and gradients of that step are finite."
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"First to hold NaN or infinity: {', '.join(bad[:_SHOWN])}{more}."


def _counts(
    task: Any, state: Any, key: Any, batch: Any, fprop_dtype: Any, var_weight_hparams: Any
) -> Iterator[tuple[str, jax.Array]]:
    """Numbers that are not finite, in the order in which a step makes them."""
    yield from _of_tree("input", batch)
    yield from _of_tree("variable", state.mdl_vars)
    key = jax.random.fold_in(key, state.step)
    mdl_vars = task.maybe_adjust_train_state(state.step, state.mdl_vars, var_weight_hparams, key)
    loss_key = jax.random.split(key)[1]
    seen: list[tuple[str, jax.Array]] = []

    def loss_fn(apply_fn: Any) -> Any:
        return make_loss_fn(
            task,
            var_weight_hparams=var_weight_hparams,
            fprop_dtype=fprop_dtype,
            apply_fn=apply_fn,
        )

    context = base_layer.JaxContext.HParams(do_eval=False, summary_verbosity=task.summary_verbosity)
    with base_layer.JaxContext.new_context(hparams=context):
        loss_fn(_recording(seen))(mdl_vars, batch, loss_key)
        yield from seen
        learner = task.learners[0]
        excluded = exclusion.get_excluded_var_mask_for_grad(var_weight_hparams, learner)
        _, grads = make_grad_fn(excluded)(loss_fn(None), learner, mdl_vars, batch, loss_key)
    yield from _of_tree("gradient of", grads)


def _recording(seen: list[tuple[str, jax.Array]]) -> Any:
    """Runs the model and notes the output of each layer, inner ones first.

    Layers inside a loop or a rematerialized block are not seen one by one, only its result is.
    """

    def apply(*args: Any, **kwargs: Any) -> Any:
        outside = tracers.current_trace()

        def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__" and tracers.current_trace() == outside:
                path = "/".join(context.module.path) or context.module.name
                seen.extend(_of_tree(f"output of {type(context.module).__name__} {path!r}", out))
            return out

        with nn.intercept_methods(record):
            return apply_model(*args, **kwargs)

    return apply


def _of_tree(kind: str, tree: Any) -> Iterator[tuple[str, jax.Array]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            name = trees.path_text(path)
            number = jnp.sum(~jnp.isfinite(jnp.asarray(leaf)), dtype=jnp.int32)
            yield f"{kind} {name}".strip(), number

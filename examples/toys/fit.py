"""Trains a model on batches that are all there from the start."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from examples.digits import optimizers
from paxml import learners
from praxis import base_layer, pax_fiddle
from praxis import optimizers as praxis_optimizers
from praxis.py_utils import NestedMap

Variables = Any


def one_hot(x: np.ndarray, size: int) -> np.ndarray:
    """[..., size], float32, from numbers [...]."""
    return np.eye(size, dtype=np.float32)[x]


def fit(
    model: base_layer.BaseLayer,
    batches: NestedMap,
    loss: Callable[[Any, NestedMap], Float[Array, ""]],
    *,
    learning_rate: float,
) -> Variables:
    """Trains with Adam, one compiled program for all steps.

    Args:
      model: Called with a batch.
      batches: Fields [steps, batch, ...].
      loss: Of the model's outputs and the batch.
      learning_rate: The largest one: it rises over a tenth of the steps, then falls to 0.

    Returns:
      The variables of the model after the last step.
    """
    batches = batches.Transform(jnp.asarray)
    steps = len(jax.tree.leaves(batches)[0])
    first = batches.Transform(lambda x: x[0])
    hparams = {"params": model.abstract_init_with_metadata(first)["params"]}
    entry = optimizers.Entry(praxis_optimizers.Adam, learning_rate)
    learner = pax_fiddle.build(
        pax_fiddle.Config(
            learners.Learner, name="learner", optimizer=optimizers.config(entry, steps)
        )
    )

    def step(
        carry: tuple[Variables, Any], batch: NestedMap
    ) -> tuple[tuple[Variables, Any], Float[Array, ""]]:
        variables, state = carry
        params = {"params": variables["params"]}

        def outcome(params: Variables) -> tuple[Float[Array, ""], Variables]:
            outputs, updated = model.apply(
                {**variables, **params}, batch, mutable=[base_layer.NON_TRAINABLE]
            )
            return loss(outputs, batch), updated

        (value, updated), grads = jax.value_and_grad(outcome, has_aux=True)(params)
        updates, state = learner.update_states(grads, state, params, hparams)
        params = learner.apply_gradient(params, updates, hparams)
        return ({**variables, **updated, **params}, state), value

    @jax.jit
    def run(batches: NestedMap) -> tuple[Variables, Float[Array, " steps"]]:
        variables = dict(model.init(jax.random.key(0), first))
        state = learner.get_grad_tx(hparams).init({"params": variables["params"]})
        (variables, _), losses = lax.scan(step, (variables, state), batches)
        return variables, losses

    return run(batches)[0]


def evaluate(model: base_layer.BaseLayer, variables: Variables, batch: NestedMap) -> Any:
    """What the model returns for a batch, outside of training."""
    context = base_layer.JaxContext.HParams(do_eval=True)

    @jax.jit
    def run(variables: Variables, batch: NestedMap) -> Any:
        with base_layer.JaxContext.new_context(hparams=context):
            return model.apply(variables, batch)

    return run(variables, batch.Transform(jnp.asarray))

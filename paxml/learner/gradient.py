"""How the gradient of a batch is made."""

import abc
from collections.abc import Callable
from typing import Any

import flax.struct
import jax

from praxis.config.parameterizable import FiddleBaseParameterizable

PARAMS = "params"
PMAP_PARALLEL_AXIS_NAME = "batch"

# (variables with gradient, (variables without, inputs), key) -> (loss, GradAuxInfo)
LossFn = Callable[[Any, tuple[Any, Any], jax.Array], tuple[jax.Array, Any]]
ValueAndGrad = tuple[tuple[jax.Array, Any], Any]


@flax.struct.dataclass
class GradAuxInfo:
    """What a loss function returns besides the loss.

    Attributes:
      aux_info: anything.
      loss_weight: weight of the loss, such as the number of examples in it.
    """

    aux_info: Any
    loss_weight: float | jax.Array = 1.0


class BaseStochasticGradient(FiddleBaseParameterizable, abc.ABC):
    """Makes the gradient of a batch; the place for clipping and noise for each example."""

    @abc.abstractmethod
    def grad_fn(
        self,
        loss_fn: LossFn,
        mdl_vars_grad: Any,
        mdl_vars_nograd_and_inputs: tuple[Any, Any],
        prng_key: jax.Array,
    ) -> ValueAndGrad:
        """The loss and its gradient.

        Args:
          loss_fn: see `LossFn`; its second result is a `GradAuxInfo`.
          mdl_vars_grad: variables to differentiate by.
          mdl_vars_nograd_and_inputs: the other variables, and the batch.
          prng_key: key of the step.

        Returns:
          ((loss, aux), gradients like `mdl_vars_grad`).
        """

    def process_aux_info(self, aux_info: Any) -> Any:
        """What becomes of the auxiliary results of several examples; nothing by default."""
        return aux_info


class StandardGradient(BaseStochasticGradient):
    """The plain gradient of the loss of the batch."""

    def grad_fn(
        self,
        loss_fn: LossFn,
        mdl_vars_grad: Any,
        mdl_vars_nograd_and_inputs: tuple[Any, Any],
        prng_key: jax.Array,
    ) -> ValueAndGrad:
        # allow_int: an integer variable in the tree has an empty gradient instead of an error.
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True, allow_int=True)
        return value_and_grad(mdl_vars_grad, mdl_vars_nograd_and_inputs, prng_key)

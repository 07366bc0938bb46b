"""What steps take and give."""

import dataclasses
import enum
from typing import Any, Protocol, runtime_checkable

import jax
from flax import struct

from paxml.train_states import TrainState


class RunningMode(enum.Flag):
    """What ran at a step: any combination of training, evaluation and decoding."""

    TRAIN = enum.auto()
    EVAL = enum.auto()
    DECODE = enum.auto()

    @classmethod
    def detect(cls, *, has_train: bool, has_eval: bool, has_decode: bool) -> "RunningMode":
        """The combination of those that are true."""
        mode = cls(0)
        for is_on, member in (
            (has_train, cls.TRAIN),
            (has_eval, cls.EVAL),
            (has_decode, cls.DECODE),
        ):
            if is_on:
                mode |= member
        return mode

    @property
    def has_train(self) -> bool:
        return bool(self & RunningMode.TRAIN)

    @property
    def has_eval(self) -> bool:
        return bool(self & RunningMode.EVAL)

    @property
    def has_decode(self) -> bool:
        return bool(self & RunningMode.DECODE)


@struct.dataclass
class StepFnOutput:
    """Results of one step on one global batch.

    Attributes:
      loss: Mean loss, float32 scalar; None when decoding.
      weighted_scalars: Metrics as (value, weight).
      per_example_out: Arrays with one row for each example.
      summary_tensors: Summaries by name; the name ends in the type, e.g. `_scalar`.
      clu_metrics: Metrics as objects with `merge` and `compute`.
    """

    loss: Any
    weighted_scalars: Any
    per_example_out: Any
    summary_tensors: Any
    clu_metrics: dict[str, Any] | None = None


@struct.dataclass
class BaseStepFnStaticArgs:
    """What a step is compiled for; another value compiles it again.

    Attributes:
      unpadded_global_batch_size: Rows of the global batch that are examples; the rest is padding
        and is cut off. None keeps all.
    """

    unpadded_global_batch_size: int | None = struct.field(pytree_node=False)


@dataclasses.dataclass
class TrainStateMetadata:
    """Shapes and shardings of a train state.

    Attributes:
      input_shape_dtype: Specs of a global batch.
      var_weight_hparams: `WeightHParams` of all variables, by collection.
      padded_global_shapes: Shapes as stored on the mesh.
      unpadded_global_shapes: Shapes as the model sees them.
      partition_specs: Shardings.
    """

    input_shape_dtype: Any
    var_weight_hparams: Any
    padded_global_shapes: TrainState | None = None
    unpadded_global_shapes: TrainState | None = None
    partition_specs: TrainState | None = None


@runtime_checkable
class ApplyFnProtocol(Protocol):
    """Runs a model on a batch."""

    def __call__(
        self, model: Any, variables: Any, inputs: Any, mutable: Any, rngs: Any
    ) -> tuple[tuple[Any, Any], Any]:
        """Returns ((metrics, per-example outputs), updated collections)."""
        ...


@runtime_checkable
class LossFnProtocol(Protocol):
    """The loss of all variables on a batch."""

    def __call__(self, mdl_vars: Any, inputs: Any, prng_key: jax.Array) -> tuple[jax.Array, Any]:
        """Returns the loss to differentiate and a `sgf.GradAuxInfo`."""
        ...


@runtime_checkable
class GradFnProtocol(Protocol):
    """Differentiates a loss."""

    def __call__(
        self, loss_fn: LossFnProtocol, learner: Any, mdl_vars: Any, inputs: Any, prng_key: jax.Array
    ) -> tuple[tuple[jax.Array, Any], Any]:
        """Returns ((loss, aux), gradients); the gradients have the structure of the variables."""
        ...

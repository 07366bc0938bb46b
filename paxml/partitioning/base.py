"""What a partitioner does: decide where state and batches live, and compile steps for it."""

import abc
from typing import Any, Protocol, runtime_checkable

import jax
from etils import epath
from jax.sharding import Mesh, NamedSharding

from paxml.checkpoint.kinds import CheckpointType
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState, TrainStateProvenance
from paxml.trainer.files import write_input_specs
from paxml.trainer.inputs import global_specs
from paxml.trainer.types import BaseStepFnStaticArgs, StepFnOutput, TrainStateMetadata
from praxis import base_input, pax_fiddle
from praxis.utils import trees


@runtime_checkable
class StepFn(Protocol):
    """A step before it is compiled."""

    def __call__(
        self,
        jax_task: SingleTask,
        train_state: TrainState,
        prng_key: jax.Array,
        inputs: Any,
        fprop_dtype: Any,
        var_weight_hparams: Any,
        static_args: BaseStepFnStaticArgs | None = None,
    ) -> tuple[TrainState | None, StepFnOutput]:
        """Returns the new state, None when it is only read, and the results."""
        ...


@runtime_checkable
class PartitionedStepFn(Protocol):
    """A step compiled for a mesh."""

    def __call__(
        self,
        train_state: TrainState,
        prng_key: jax.Array,
        inputs: Any,
        static_args: BaseStepFnStaticArgs | None = None,
    ) -> tuple[TrainState | None, StepFnOutput]:
        """Returns the new state, None when it is only read, and the results."""
        ...


class Partitioner(abc.ABC):
    """Places a task on devices.

    Life: `prepare`, `preprocess_input_config` for each input, `setup`, then
    `initialize_prng_key_and_train_state`, then `partition` once for each kind of step.
    """

    def __init__(self, init_is_eval: bool = False) -> None:
        """Starts without a task.

        Args:
          init_is_eval: Whether variables are made in evaluation mode.
        """
        self._init_is_eval = init_is_eval
        self._task: SingleTask | None = None
        self._init_key: jax.Array | None = None
        self._inputs_shape_dtype: Any = None

    def prepare(self, jax_task: SingleTask) -> None:
        """Hook: learns the task, before the configs of inputs are preprocessed."""
        del jax_task

    def setup(
        self,
        jax_task: SingleTask,
        init_key: jax.Array,
        train_inputs_shape_dtype: Any,
        train_input_pipeline: base_input.BaseInput | None = None,
        job_log_dir: epath.PathLike | None = None,
    ) -> None:
        """Tells the task and the shapes of a batch.

        Args:
          jax_task: The task.
          init_key: Key of the first weights.
          train_inputs_shape_dtype: Specs of a global batch.
          train_input_pipeline: In place of the specs: an input, one batch of which is looked at.
          job_log_dir: Where `input_specs.json` goes when the shapes come from an input.

        Raises:
          ValueError: unless exactly one of specs and input is given.
        """
        if (train_inputs_shape_dtype is None) == (train_input_pipeline is None):
            raise ValueError(
                f"{type(self).__name__}.setup: give train_inputs_shape_dtype or "
                "train_input_pipeline, and not both."
            )
        if train_input_pipeline is not None:
            specs = trees.get_shape_dtype(train_input_pipeline.peek_padded())
            train_inputs_shape_dtype = global_specs(specs)
            if job_log_dir is not None:
                write_input_specs(specs, job_log_dir)
        self._task = jax_task
        self._init_key = init_key
        self._inputs_shape_dtype = train_inputs_shape_dtype

    @property
    def task(self) -> SingleTask:
        """The task of `setup`."""
        if self._task is None:
            raise ValueError(f"{type(self).__name__} is used before setup().")
        return self._task

    @property
    def train_inputs_shape_dtype(self) -> Any:
        """Specs of a global training batch."""
        return self._inputs_shape_dtype

    @property
    @abc.abstractmethod
    def global_mesh(self) -> Mesh:
        """The mesh of all devices."""

    def check_input_spec(self, batch: Any) -> None:
        """Compares a batch with the specs; the batch dimension and extra arrays are ignored.

        Raises:
          ValueError: naming the first array that is missing or differs.
        """
        found = _by_path(batch)
        for name, spec in _by_path(self._inputs_shape_dtype).items():
            wanted = f"shape [B, {', '.join(map(str, spec.shape[1:]))}] and dtype {spec.dtype}"
            if name not in found:
                raise ValueError(
                    f"The training batch has no array {name!r}; the input specs want one with "
                    f"{wanted}. It has {sorted(found)}."
                )
            got = found[name]
            if tuple(got.shape[1:]) != tuple(spec.shape[1:]) or got.dtype != spec.dtype:
                raise ValueError(
                    f"Array {name!r} of the training batch has shape {tuple(got.shape)} and dtype "
                    f"{got.dtype}, but the input specs want {wanted} (spec shape "
                    f"{tuple(spec.shape)}). Correct get_input_specs_provider_params() or the "
                    "input, or set train.enforce_input_specs = False."
                )

    @abc.abstractmethod
    def preprocess_input_config(
        self, input_p: pax_fiddle.Config[base_input.BaseInput]
    ) -> pax_fiddle.Config[base_input.BaseInput]:
        """A copy of an input's config with what depends on the machines filled in."""

    @abc.abstractmethod
    def preprocess_prng_key(self, prng_key: jax.Array) -> jax.Array:
        """Places a key for use in compiled steps."""

    @abc.abstractmethod
    def preprocess_inputs(
        self,
        input_pipeline: base_input.BaseInput | None,
        padded_inputs: Any,
        partition_specs: Any | None,
    ) -> Any:
        """Makes global arrays of the rows of this process."""

    @abc.abstractmethod
    def get_train_state_metadata(
        self, discard_opt_states: bool = False, unpadded_global_batch_size: int | None = None
    ) -> TrainStateMetadata:
        """Shapes and shardings of the train state."""

    def abstract_train_state(self, discard_opt_states: bool = False) -> TrainState:
        """Shape, dtype and sharding of each array of the state as stored."""
        metadata = self.get_train_state_metadata(discard_opt_states)
        return jax.tree.map(
            lambda shape, spec: jax.ShapeDtypeStruct(
                shape.shape, shape.dtype, sharding=NamedSharding(self.global_mesh, spec)
            ),
            metadata.padded_global_shapes,
            metadata.partition_specs,
        )

    @abc.abstractmethod
    def initialize_prng_key_and_train_state(
        self,
        root_prng_key: jax.Array,
        train_state: TrainState | None,
        checkpoint_type: CheckpointType | None,
        discard_opt_states: bool = False,
    ) -> tuple[jax.Array, TrainState, TrainStateProvenance | None]:
        """The key of the run, its first state, and where the state comes from if it is new."""

    @abc.abstractmethod
    def partition(
        self, step_fn: StepFn, inputs_shape_dtype: Any, is_eval: bool
    ) -> tuple[PartitionedStepFn, Any]:
        """Compiles a step for the mesh; returns it with the sharding of its inputs."""


def _by_path(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {trees.path_text(path): leaf for path, leaf in flat}

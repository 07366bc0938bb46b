"""The one partitioner: `jax.jit` with a `NamedSharding` for every array of the state."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paxml.checkpoint.kinds import CheckpointType
from paxml.partitioning.base import PartitionedStepFn, Partitioner, StepFn
from paxml.partitioning.mesh import make_mesh
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState, TrainStateProvenance
from paxml.trainer import inputs as input_shapes
from paxml.trainer.dtypes import forward_dtype
from paxml.trainer.init import create_train_state_metadata, initialize_partitioned_model_states
from paxml.trainer.replicate import bind_mesh
from paxml.trainer.types import BaseStepFnStaticArgs, TrainStateMetadata
from paxml.trainer.uneven import pad_state, slice_state
from praxis import base_input, pax_fiddle


class JitPartitioner(Partitioner):
    """Places a task on the mesh that its model asks for.

    A model without a mesh has its batches spread over all devices and its variables on each. The
    program is the same as on a mesh and sees the global batch: batch statistics are those of the
    global batch, and each example has its own random numbers. (The former `pmap` mode took
    statistics by device and averaged them.)

    Batches enter split over all mesh axes; everything but the state leaves replicated.
    """

    def __init__(
        self,
        init_is_eval: bool = False,
        reshard_inputs: bool = False,
        task: SingleTask | None = None,
        device_mesh: np.ndarray | None = None,
    ) -> None:
        """Makes the mesh as soon as the task is known.

        Args:
          init_is_eval: Whether variables are made in evaluation mode.
          reshard_inputs: Has no effect: batches always become global arrays.
          task: The task; may wait for `prepare`.
          device_mesh: Devices in the shape of the mesh; all devices when missing.
        """
        super().__init__(init_is_eval)
        del reshard_inputs
        self._device_mesh = device_mesh
        self._mesh: Mesh | None = None
        self._metadata: dict[bool, TrainStateMetadata] = {}
        self._partitioned: dict[Any, PartitionedStepFn] = {}
        if task is not None:
            self.prepare(task)

    def prepare(self, jax_task: SingleTask) -> None:
        if self._mesh is None:
            self._mesh = make_mesh(jax_task.model, self._device_mesh)

    def setup(self, jax_task: SingleTask, *args: Any, **kwargs: Any) -> None:
        super().setup(jax_task, *args, **kwargs)
        self._metadata.clear()
        self._partitioned.clear()
        self.prepare(jax_task)

    @property
    def global_mesh(self) -> Mesh:
        if self._mesh is None:
            raise ValueError(
                f"{type(self).__name__} has no mesh yet: give it the task, or call prepare()."
            )
        return self._mesh

    def preprocess_input_config(
        self, input_p: pax_fiddle.Config[base_input.BaseInput]
    ) -> pax_fiddle.Config[base_input.BaseInput]:
        input_p = input_p.clone()
        if input_p.num_infeed_hosts == 0:
            input_p.num_infeed_hosts = jax.process_count()
        input_p.infeed_host_index = jax.process_index()
        return input_shapes.adjust_input_params_for_small_batch(input_p, self.global_mesh)

    def preprocess_prng_key(self, prng_key: jax.Array) -> jax.Array:
        return jax.device_put(prng_key, self._sharding(PartitionSpec()))

    def preprocess_inputs(
        self,
        input_pipeline: base_input.BaseInput | None,
        padded_inputs: Any,
        partition_specs: Any | None,
    ) -> Any:
        if partition_specs is None:
            partition_specs = input_shapes.get_input_partition_specs(
                self.global_mesh.axis_names, padded_inputs
            )
        if input_pipeline is not None:
            return input_pipeline.reshard_for_spmd(padded_inputs, self.global_mesh, partition_specs)
        return input_shapes.to_global_arrays(padded_inputs, self.global_mesh, partition_specs)

    def get_train_state_metadata(
        self, discard_opt_states: bool = False, unpadded_global_batch_size: int | None = None
    ) -> TrainStateMetadata:
        del unpadded_global_batch_size
        if discard_opt_states not in self._metadata:
            self._metadata[discard_opt_states] = create_train_state_metadata(
                self.task,
                self.train_inputs_shape_dtype,
                discard_opt_states=discard_opt_states,
                do_eval=self._init_is_eval and not self.task.train.always_use_train_for_model_init,
            )
        return self._metadata[discard_opt_states]

    def initialize_prng_key_and_train_state(
        self,
        root_prng_key: jax.Array,
        train_state: TrainState | None,
        checkpoint_type: CheckpointType | None,
        discard_opt_states: bool = False,
    ) -> tuple[jax.Array, TrainState, TrainStateProvenance | None]:
        # Split before it is known whether there is anything to initialize: a resumed run must
        # draw the same numbers as one that never stopped.
        root_prng_key, init_key = jax.random.split(root_prng_key)
        if train_state is not None:
            return root_prng_key, train_state, None
        metadata = self.get_train_state_metadata(discard_opt_states)
        assert metadata.partition_specs is not None
        state, provenance = initialize_partitioned_model_states(
            self.task,
            init_key,
            metadata.input_shape_dtype,
            metadata.partition_specs,
            discard_opt_states=discard_opt_states,
            global_mesh=self.global_mesh,
            checkpoint_type=checkpoint_type or CheckpointType.UNSPECIFIED,
            var_weight_hparams=metadata.var_weight_hparams,
            is_eval=self._init_is_eval,
        )
        return root_prng_key, state, provenance

    def partition(
        self, step_fn: StepFn, inputs_shape_dtype: Any, is_eval: bool
    ) -> tuple[PartitionedStepFn, Any]:
        input_specs = input_shapes.get_input_partition_specs(
            self.global_mesh.axis_names, inputs_shape_dtype
        )
        # Programs that run the same step share it: JAX then compiles it once for equal batches.
        leaves, structure = jax.tree.flatten(input_specs)
        key = (step_fn, is_eval, structure, tuple(leaves))
        if key not in self._partitioned:
            self._partitioned[key] = self._jitted(step_fn, input_specs, is_eval)
        return self._partitioned[key], input_specs

    def lower(
        self,
        step_fn: StepFn,
        inputs_shape_dtype: Any,
        is_eval: bool,
        static_args: BaseStepFnStaticArgs | None = None,
    ) -> jax.stages.Lowered:
        """The program of a step, from shapes alone: nothing is allocated.

        Its `compile()` gives the program of one device, with what devices send each other.

        Args:
          step_fn: The step.
          inputs_shape_dtype: Specs of a global batch.
          is_eval: Whether the state is read only.
          static_args: What the step is compiled for.
        """
        input_specs = input_shapes.get_input_partition_specs(
            self.global_mesh.axis_names, inputs_shape_dtype
        )
        state = self.abstract_train_state(discard_opt_states=is_eval)
        key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
        with jax.set_mesh(self.global_mesh):
            jitted = self._jit(step_fn, input_specs, is_eval)
            return jitted.lower(state, key, inputs_shape_dtype, static_args)

    def _jitted(self, step_fn: StepFn, input_specs: Any, is_eval: bool) -> PartitionedStepFn:
        bound = bind_mesh(self._jit(step_fn, input_specs, is_eval), self.global_mesh)

        def run(
            train_state: TrainState,
            prng_key: jax.Array,
            inputs: Any,
            static_args: BaseStepFnStaticArgs | None = None,
        ) -> Any:
            return bound(train_state, prng_key, inputs, static_args)

        return run

    def _jit(self, step_fn: StepFn, input_specs: Any, is_eval: bool) -> Any:
        metadata = self.get_train_state_metadata(discard_opt_states=is_eval)
        specs = metadata.partition_specs
        fprop_dtype = forward_dtype(self.task.model)

        def step(
            state: TrainState,
            key: jax.Array,
            batch: Any,
            static_args: BaseStepFnStaticArgs | None,
        ) -> Any:
            state = slice_state(state, metadata.unpadded_global_shapes)
            batch = self._prepare_batch(batch, static_args)
            new_state, out = step_fn(
                self.task, state, key, batch, fprop_dtype, metadata.var_weight_hparams, static_args
            )
            if new_state is not None:
                new_state = pad_state(new_state, specs, self.global_mesh)
            return new_state, out

        state_shardings = jax.tree.map(self._sharding, specs)
        replicated = self._sharding(PartitionSpec())
        return jax.jit(
            step,
            in_shardings=(
                state_shardings,
                replicated,
                jax.tree.map(self._sharding, input_specs),
                None,
            ),
            out_shardings=(None if is_eval else state_shardings, replicated),
            donate_argnums=() if is_eval else (0,),
        )

    def _prepare_batch(self, batch: Any, static_args: BaseStepFnStaticArgs | None) -> Any:
        """Cuts padding rows off and applies the task's split of the inputs."""
        rows = static_args.unpadded_global_batch_size if static_args else None
        mapping = self.task.train.inputs_split_mapping

        def prepare(x: jax.Array) -> jax.Array:
            if rows is not None and x.ndim and x.shape[0] > rows:
                x = x[:rows]
            return input_shapes.reshard_input_based_on_rank_fn(
                mapping, self.global_mesh.axis_names, x
            )

        return jax.tree.map(prepare, batch)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.global_mesh, spec)

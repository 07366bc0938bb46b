"""Variables and optimizer state of a fresh run, and their shapes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from paxml.checkpoint.kinds import CheckpointType
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState, TrainStateProvenance, build_train_state_provenance
from paxml.trainer import inputs
from paxml.trainer.dtypes import cast_input_specs, forward_dtype
from paxml.trainer.shardings import check_shardings
from paxml.trainer.types import TrainStateMetadata
from paxml.trainer.uneven import pad_state, slice_state
from praxis import base_input, base_layer


def get_train_input_specs_for_model_init(
    task: SingleTask, input_specs_provider: base_input.BaseInputSpecsProvider
) -> Any:
    """Specs of a global training batch."""
    del task
    return inputs.global_specs(input_specs_provider.get_input_specs())


def create_train_state_metadata(
    jax_task: SingleTask,
    train_shape_dtype: Any,
    discard_opt_states: bool = False,
    do_eval: bool = False,
) -> TrainStateMetadata:
    """Shapes and shardings of the train state, without running the model.

    Args:
      jax_task: The task.
      train_shape_dtype: Specs of a global batch.
      discard_opt_states: Whether to leave the optimizer state out.
      do_eval: Whether the model is in evaluation mode.

    Raises:
      ValueError: if a variable asks for a mesh axis that does not exist, or for one twice.
    """
    hparams = jax_task.model.abstract_init_with_metadata(train_shape_dtype, do_eval=do_eval)
    check_shardings(hparams, jax_task.model.mesh_shape, jax_task.model.mesh_axis_names)
    args = (hparams, discard_opt_states)
    return TrainStateMetadata(
        input_shape_dtype=train_shape_dtype,
        var_weight_hparams=hparams,
        padded_global_shapes=jax_task.create_train_state_padded_shapes(*args),
        unpadded_global_shapes=jax_task.create_train_state_unpadded_shapes(*args),
        partition_specs=jax_task.create_train_state_partition_specs(*args),
    )


def initialize_model_state(
    jax_task: SingleTask,
    prng_key: jax.Array,
    inputs_shape_dtype: Any,
    discard_opt_states: bool = False,
    do_init_checkpoint_rules: bool = True,
    is_eval: bool = False,
    checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED,
    var_weight_hparams: Any = None,
) -> tuple[TrainState, TrainStateProvenance]:
    """The state at step 0 on the default device, and where its values come from.

    Args:
      jax_task: The task.
      prng_key: Split into the model's streams of random numbers.
      inputs_shape_dtype: Specs of a batch; the model sees zeros.
      discard_opt_states: Whether to leave the optimizer state out.
      do_init_checkpoint_rules: Whether the task's `init_from_checkpoint_rules` are applied.
      is_eval: Whether the model is in evaluation mode, unless the task always uses training mode.
      checkpoint_type: Has no effect.
      var_weight_hparams: `WeightHParams` of the variables; found when missing.
    """
    del checkpoint_type
    do_eval = is_eval and not jax_task.train.always_use_train_for_model_init
    if var_weight_hparams is None:
        var_weight_hparams = jax_task.model.abstract_init_with_metadata(
            inputs_shape_dtype, do_eval=do_eval
        )
    state = jax.jit(
        lambda key: _initial_state(
            jax_task, key, inputs_shape_dtype, var_weight_hparams, discard_opt_states, do_eval
        )
    )(prng_key)
    provenance = build_train_state_provenance(state)
    if not do_init_checkpoint_rules:
        return state, provenance

    def make_opt_states(mdl_vars: Any) -> list[Any]:
        return jax.jit(lambda values: jax_task.create_opt_states(values, var_weight_hparams))(
            mdl_vars
        )

    return jax_task.apply_init_checkpoint_rules(state, provenance, make_opt_states=make_opt_states)


def initialize_partitioned_model_states(
    jax_task: SingleTask,
    prng_key: jax.Array,
    global_input_shapes: Any,
    state_specs: TrainState,
    discard_opt_states: bool = False,
    global_mesh: Mesh | None = None,
    checkpoint_type: CheckpointType = CheckpointType.GDA,
    do_init_checkpoint_rules: bool = True,
    var_weight_hparams: Any = None,
    is_eval: bool = False,
) -> tuple[TrainState, TrainStateProvenance]:
    """As `initialize_model_state`, each value made where it is stored.

    Args:
      jax_task: The task.
      prng_key: Split into the model's streams of random numbers.
      global_input_shapes: Specs of a global batch; the model sees zeros.
      state_specs: Sharding of each leaf.
      discard_opt_states: Whether to leave the optimizer state out.
      global_mesh: The mesh. Required.
      checkpoint_type: Has no effect.
      do_init_checkpoint_rules: Whether the task's `init_from_checkpoint_rules` are applied.
      var_weight_hparams: `WeightHParams` of the variables; found when missing.
      is_eval: Whether the model is in evaluation mode, unless the task always uses training mode.

    Raises:
      ValueError: without a mesh.
    """
    del checkpoint_type
    if global_mesh is None:
        raise ValueError("initialize_partitioned_model_states: global_mesh is None; give a mesh.")
    do_eval = is_eval and not jax_task.train.always_use_train_for_model_init
    if var_weight_hparams is None:
        var_weight_hparams = jax_task.model.abstract_init_with_metadata(
            global_input_shapes, do_eval=do_eval
        )

    def initialize(key: jax.Array) -> TrainState:
        state = _initial_state(
            jax_task, key, global_input_shapes, var_weight_hparams, discard_opt_states, do_eval
        )
        return pad_state(state, state_specs, global_mesh)

    shardings = jax.tree.map(lambda spec: NamedSharding(global_mesh, spec), state_specs)
    with jax.set_mesh(global_mesh):
        state = jax.jit(initialize, out_shardings=shardings)(prng_key)
    provenance = build_train_state_provenance(state)
    if not do_init_checkpoint_rules:
        return state, provenance
    unpadded = jax_task.create_train_state_unpadded_shapes(var_weight_hparams, discard_opt_states)

    def make_opt_states(mdl_vars: Any) -> list[Any]:
        def make(values: Any) -> list[Any]:
            values = slice_state(values, unpadded.mdl_vars)
            opt_states = jax_task.create_opt_states(values, var_weight_hparams)
            return pad_state(opt_states, state_specs.opt_states, global_mesh)

        with jax.set_mesh(global_mesh):
            return jax.jit(make, out_shardings=shardings.opt_states)(mdl_vars)

    return jax_task.apply_init_checkpoint_rules(
        state,
        provenance,
        state_specs,
        global_mesh,
        unpadded_shapes=unpadded,
        make_opt_states=make_opt_states,
    )


def _initial_state(
    task: SingleTask,
    key: jax.Array,
    input_specs: Any,
    var_weight_hparams: Any,
    discard_opt_states: bool,
    do_eval: bool,
) -> TrainState:
    _, params_key, random_key, non_pax_key = jax.random.split(key, 4)
    specs = cast_input_specs(input_specs, forward_dtype(task.model))
    zeros = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), specs)
    context = base_layer.JaxContext.HParams(
        do_eval=do_eval, summary_verbosity=task.summary_verbosity
    )
    with base_layer.JaxContext.new_context(hparams=context):
        mdl_vars = task.model.init(
            {
                base_layer.PARAMS: params_key,
                base_layer.RANDOM: random_key,
                base_layer.NON_PAX_RNG_KEY: non_pax_key,
            },
            zeros,
        )
        mdl_vars = {name: tree for name, tree in mdl_vars.items() if name != "params_axes"}
        return task.create_train_state(mdl_vars, var_weight_hparams, discard_opt_states)

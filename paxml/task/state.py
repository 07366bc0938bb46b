"""The train state of a task: values, shapes and shardings."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from paxml.task.exclusion import filter_vars_for_grad_or_opt, get_excluded_var_mask_for_opt
from paxml.train_states import TrainState
from praxis import base_layer
from praxis.utils import trees

NO_PREFIX_KEY = "no_prefix"


def create_state(
    mdl_vars: Any, var_weight_hparams: Any, discard_opt_states: bool, learners: Sequence[Any]
) -> TrainState:
    """The state at step 0.

    Args:
      mdl_vars: All variables, by collection.
      var_weight_hparams: Their `WeightHParams`, same structure.
      discard_opt_states: Whether to leave the optimizer state out.
      learners: The one learner of the task.
    """
    opt_states = (
        [] if discard_opt_states else create_opt_states(mdl_vars, var_weight_hparams, learners)
    )
    return TrainState(
        step=jnp.zeros([], jnp.uint32), mdl_vars=mdl_vars, opt_states=opt_states, extra_state=()
    )


def create_opt_states(mdl_vars: Any, var_weight_hparams: Any, learners: Sequence[Any]) -> list[Any]:
    """The optimizer state of each learner, over the variables that are not excluded."""
    return [
        _grad_tx(var_weight_hparams, learner).init(_with_opt(mdl_vars, var_weight_hparams, learner))
        for learner in learners
    ]


def create_state_unpadded_shapes(
    var_weight_hparams: Any, discard_opt_states: bool, learners: Sequence[Any]
) -> TrainState:
    """Shapes and dtypes of the state, `jax.ShapeDtypeStruct` leaves, without any memory."""
    mdl_vars = jax.tree.map(
        lambda hparams: jax.ShapeDtypeStruct(tuple(hparams.full_shape), hparams.dtype),
        var_weight_hparams,
    )
    with base_layer.JaxContext.new_context():
        return jax.eval_shape(
            lambda values: create_state(values, var_weight_hparams, discard_opt_states, learners),
            mdl_vars,
        )


def create_state_padded_shapes(
    var_weight_hparams: Any,
    mesh_shape: Sequence[int] | None,
    mesh_axis_names: Sequence[str] | None,
    discard_opt_states: bool,
    learners: Sequence[Any],
) -> TrainState:
    """Shapes of the state as stored: each dimension a multiple of the mesh axes that split it."""
    shapes = create_state_unpadded_shapes(var_weight_hparams, discard_opt_states, learners)
    specs = create_state_partition_specs(
        var_weight_hparams, mesh_shape, mesh_axis_names, discard_opt_states, learners
    )
    sizes = dict(zip(mesh_axis_names or (), mesh_shape or (), strict=True))

    def padded(shape: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(padded_shape(shape.shape, spec, sizes), shape.dtype)

    return jax.tree.map(padded, shapes, specs)


def padded_shape(
    shape: Sequence[int], spec: PartitionSpec, axis_sizes: dict[str, int]
) -> tuple[int, ...]:
    """Rounds each dimension up to a multiple of the number of its shards.

    >>> padded_shape((7, 3), PartitionSpec(("data", "mdl"), None), {"data": 2, "mdl": 2})
    (8, 3)
    """
    axes = [*spec, *[None] * (len(shape) - len(spec))]
    return tuple(
        -(-size // shards) * shards
        for size, shards in zip(shape, (_num_shards(a, axis_sizes) for a in axes), strict=True)
    )


def create_state_partition_specs(
    var_weight_hparams: Any,
    mesh_shape: Sequence[int] | None,
    mesh_axis_names: Sequence[str] | None,
    discard_opt_states: bool,
    learners: Sequence[Any],
    opt_states: Any = None,
) -> TrainState:
    """A `PartitionSpec` for each leaf of the state.

    Optimizer slots follow what the optimizer declares. One that declares nothing has each slot of
    a variable's name and shape sharded like the variable, and the rest replicated.

    Args:
      var_weight_hparams: `WeightHParams` of all variables.
      mesh_shape: Size of each mesh axis; None replicates everything.
      mesh_axis_names: Names of the axes.
      discard_opt_states: Whether to leave the optimizer state out.
      learners: The one learner of the task.
      opt_states: Ignored; shapes are found by abstract evaluation.
    """
    del opt_states
    shapes = create_state_unpadded_shapes(var_weight_hparams, discard_opt_states, learners)
    if mesh_shape is None or mesh_axis_names is None:
        return jax.tree.map(lambda _: PartitionSpec(), shapes)

    def spec_of(hparams: base_layer.WeightHParams | None) -> PartitionSpec:
        if hparams is None:
            return PartitionSpec()
        return base_layer.to_partition_spec(hparams.full_split_dims_mapping, mesh_axis_names)

    opt_specs = []
    if not discard_opt_states:
        for learner, opt_shapes in zip(learners, shapes.opt_states, strict=True):
            find = _opt_hparams_finder(var_weight_hparams, learner)
            opt_specs.append(
                jax.tree_util.tree_map_with_path(
                    lambda path, shape, find=find: spec_of(find(path, shape)), opt_shapes
                )
            )
    return TrainState(
        step=PartitionSpec(),
        mdl_vars=jax.tree.map(spec_of, var_weight_hparams),
        opt_states=opt_specs,
        extra_state=(),
    )


def is_vectorized(states: TrainState) -> bool:
    """Whether the optimizer state is grouped by the stacking prefix of the variables.

    Raises:
      ValueError: if there is no optimizer state.
    """
    if not states.opt_states:
        raise ValueError("is_vectorized: the train state has no optimizer state to look at.")
    first = states.opt_states[0]
    return isinstance(first, dict) and NO_PREFIX_KEY in first


def _opt_hparams_finder(
    var_weight_hparams: Any, learner: Any
) -> Callable[[Any, jax.ShapeDtypeStruct], base_layer.WeightHParams | None]:
    """From path and shape of an optimizer slot to the `WeightHParams` that shard it."""
    hparams = _with_opt(var_weight_hparams, var_weight_hparams, learner)
    grad_tx = _grad_tx(var_weight_hparams, learner)
    declared: dict[str, Any] = {}
    if hasattr(grad_tx, "init_partition_spec"):
        try:
            tree = grad_tx.init_partition_spec(hparams)
            declared = _by_path(tree)
        except ValueError:
            # A chain with a plain optax member declares nothing as a whole.
            declared = {}
    variables = _by_path(hparams)

    def find(path: Any, shape: jax.ShapeDtypeStruct) -> base_layer.WeightHParams | None:
        name = trees.path_text(path)
        if name in declared:
            return declared[name]
        for variable, variable_hparams in variables.items():
            same_shape = tuple(variable_hparams.full_shape) == shape.shape
            if same_shape and (name == variable or name.endswith(f"/{variable}")):
                return variable_hparams
        return None

    return find


def _by_path(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {trees.path_text(path): leaf for path, leaf in flat}


def _with_opt(tree: Any, var_weight_hparams: Any, learner: Any) -> Any:
    excluded = get_excluded_var_mask_for_opt(var_weight_hparams, learner)
    return filter_vars_for_grad_or_opt(tree, excluded)


def _grad_tx(var_weight_hparams: Any, learner: Any) -> Any:
    return learner.get_grad_tx(_with_opt(var_weight_hparams, var_weight_hparams, learner))


def _num_shards(axes: str | Sequence[str] | None, axis_sizes: dict[str, int]) -> int:
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return math.prod(axis_sizes[name] for name in names)

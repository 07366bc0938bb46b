"""States that every device holds whole, and steps bound to a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState, TrainStateProvenance
from paxml.trainer.init import initialize_model_state


def bind_mesh(pjitted_fn: Callable[..., Any], global_mesh: Mesh) -> Callable[..., Any]:
    """The same function, called with the mesh active."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.set_mesh(global_mesh):
            return pjitted_fn(*args, **kwargs)

    return call


def replicate_model_state(model_states: TrainState) -> TrainState:
    """The state with every array whole on each device."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return jax.device_put(model_states, NamedSharding(mesh, PartitionSpec()))


def initialize_replicate_model_state(
    jax_task: SingleTask,
    prng_key: jax.Array,
    inputs_shape_dtype: Any,
    discard_opt_states: bool = False,
) -> tuple[TrainState, TrainStateProvenance]:
    """The state at step 0, whole on each device, and where its values come from."""
    state, provenance = initialize_model_state(
        jax_task, prng_key, inputs_shape_dtype, discard_opt_states
    )
    return replicate_model_state(state), provenance

"""Old partitioners by their old names."""

import dataclasses
from typing import Any, NoReturn

from paxml.partitioning.jit import JitPartitioner


def refuse_auto_sharding() -> NoReturn:
    """Says that automatic sharding is gone.

    Raises:
      NotImplementedError: always.
    """
    raise NotImplementedError(
        "Automatic sharding needs a compiler option that JAX no longer has. Set ici_mesh_shape and "
        "mesh_axis_names of the model, and leave enable_auto_sharding off."
    )


class AutoShardingPjitPartitioner(JitPartitioner):
    """Not available; kept so that old code imports.

    Raises:
      NotImplementedError: when made.
    """

    @dataclasses.dataclass
    class AutoShardingInfo:
        """What automatic sharding was told."""

        step_fn: Any
        is_eval: bool
        inputs_shape_dtype: Any
        replicate_output: bool

    def __init__(
        self,
        init_is_eval: bool,
        reshard_inputs: bool,
        task: Any,
        auto_sharding_info: Any,
        device_mesh: Any = None,
    ) -> None:
        """Refuses."""
        del init_is_eval, reshard_inputs, task, auto_sharding_info, device_mesh
        refuse_auto_sharding()


def compile_for_auto_sharding(
    step_fn: Any, train_state: Any, step_key: Any, inputs_shape_dtype: Any, static_args: Any = None
) -> NoReturn:
    """Not available.

    Raises:
      NotImplementedError: always.
    """
    del step_fn, train_state, step_key, inputs_shape_dtype, static_args
    refuse_auto_sharding()


# The program is one and the same with a mesh and without.
PjitPartitioner = JitPartitioner
PmapPartitioner = JitPartitioner

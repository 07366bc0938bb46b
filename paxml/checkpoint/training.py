"""The checkpoints of a training run, for executors that are written against older versions."""

from typing import Any, NamedTuple

import jax
import numpy as np

from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.manager import Checkpointer
from paxml.train_states import TrainState, TrainStateProvenance


class ModelStates(NamedTuple):
    """How a run begins.

    Attributes:
      train_state: Restored, or new.
      train_state_provenance: Where a new state comes from; None for a restored one.
      total_num_params: Number of elements of all trainable variables.
      root_prng_key: Key of the run.
    """

    train_state: TrainState
    train_state_provenance: TrainStateProvenance | None
    total_num_params: int
    root_prng_key: jax.Array


class TrainingCheckpointer:
    """A `Checkpointer` by the names that older executors call."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        """Remembers the newest step at this moment: the one that is restored."""
        self._checkpointer = checkpointer
        self._step_to_restore = checkpointer.latest_step()

    @property
    def step_to_restore(self) -> int | None:
        """The newest step when this was made; None if there was none."""
        return self._step_to_restore

    @property
    def checkpoint_type(self) -> CheckpointType:
        """The layout."""
        return CheckpointType.GDA

    def save_if_needed(
        self,
        step_i: int,
        partitioned_train_state: TrainState,
        train_state_unpadded_shape_dtype_struct: Any,
        train_state_pspecs: Any,
        train_input_pipeline: Any,
    ) -> None:
        """Saves if a checkpoint is due; the input, if it has `save(path)`."""
        del train_state_pspecs
        self._checkpointer.save(
            step_i,
            partitioned_train_state,
            train_input=train_input_pipeline,
            unpadded_shapes=train_state_unpadded_shape_dtype_struct,
        )

    def save_final(
        self,
        step_i: int,
        *,
        partitioned_train_state: TrainState,
        train_state_unpadded_shape_dtype_struct: Any,
        train_state_pspecs: Any,
        train_input_pipeline: Any,
    ) -> None:
        """Saves unless this step is saved."""
        del train_state_pspecs
        latest = self._checkpointer.latest_step()
        if latest is None or latest < step_i:
            self._checkpointer.save(
                step_i,
                partitioned_train_state,
                train_input=train_input_pipeline,
                unpadded_shapes=train_state_unpadded_shape_dtype_struct,
                force=True,
            )

    def get_model_states(
        self, partitioner: Any, metadata: Any, root_prng_key: jax.Array, train_input_pipeline: Any
    ) -> ModelStates:
        """Restores the step to restore and the input's position, or makes a new state.

        Args:
          partitioner: A partitioner that is set up.
          metadata: Its `TrainStateMetadata`.
          root_prng_key: Key of the run.
          train_input_pipeline: The input; None leaves it alone.
        """
        step, state = self._step_to_restore, None
        if step is not None:
            state = self._checkpointer.restore(
                step,
                partitioner.abstract_train_state(),
                unpadded_shapes=metadata.unpadded_global_shapes,
            )
            if train_input_pipeline is not None:
                self._checkpointer.restore_input(step, train_input_pipeline)
        root_prng_key, state, provenance = partitioner.initialize_prng_key_and_train_state(
            root_prng_key, state, self.checkpoint_type
        )
        shapes = jax.tree.leaves(metadata.unpadded_global_shapes.mdl_vars["params"])
        num_params = sum(int(np.prod(leaf.shape)) for leaf in shapes)
        return ModelStates(state, provenance, num_params, root_prng_key)

    def reached_preemption(self, step: int) -> bool:
        """Whether the machine is about to be taken away at this step."""
        return self._checkpointer.reached_preemption(step)

    def wait_until_finished(self) -> None:
        """Waits for the save in the background; raises its error."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits, and frees the threads."""
        self._checkpointer.close()

"""The state that a run begins with: restored from a checkpoint, or new."""

import dataclasses
from typing import Any

import jax
from absl import logging

from paxml.checkpoint.manager import Checkpointer
from paxml.checkpoint.steps import UnreadableCheckpointError
from paxml.partitioning.base import Partitioner
from paxml.program.external import restore_external
from paxml.program.prefetch import saves_itself
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState, TrainStateProvenance
from praxis import base_input


@dataclasses.dataclass(frozen=True)
class Beginning:
    """State and keys of a run at its first step.

    Attributes:
      state: The train state.
      step: Number of updates already applied.
      provenance: Where a new state comes from; None for a restored one.
      train_key: Key of training; each step folds its number in.
      eval_key: Key of evaluation.
      decode_key: Key of decoding.
    """

    state: TrainState
    step: int
    provenance: TrainStateProvenance | None
    train_key: jax.Array
    eval_key: jax.Array
    decode_key: jax.Array


def begin(
    task: SingleTask,
    *,
    checkpointer: Checkpointer | None,
    partitioner: Partitioner,
    root_key: jax.Array,
    train_input: base_input.BaseInput,
) -> Beginning:
    """Restores the newest checkpoint and the input's position, or makes a new state.

    Raises:
      UnreadableCheckpointError: if there are checkpoints and none can be read.
      ValueError: if the restored state is not of the step that its checkpoint is named after.
    """
    restored = None
    if checkpointer is not None:
        restored = checkpointer.restore_latest(
            partitioner.abstract_train_state(),
            unpadded_shapes=partitioner.get_train_state_metadata().unpadded_global_shapes,
        )
        if restored is None and (damaged := checkpointer.damaged_steps()):
            raise UnreadableCheckpointError(
                f"No checkpoint in {checkpointer.directory} can be read, but there are those of "
                f"steps {damaged}; the warnings above say what is wrong with each. Training does "
                "not start over beside them: repair them, move them away, or give another "
                "job_log_dir."
            )
    first = restored[1] if restored else restore_external(task, partitioner)
    root_key, state, provenance = partitioner.initialize_prng_key_and_train_state(
        root_key, first, None
    )
    step = int(jax.device_get(state.step))
    if restored and checkpointer is not None:
        if restored[0] != step:
            raise ValueError(
                f"The checkpoint of step {restored[0]} in {checkpointer.directory} holds a state "
                f"of step {step}. Move it away to start from the one before."
            )
        logging.info("Restored step %d from %s", step, checkpointer.directory)
        _log_what_is_not_loaded(task)
        restore_input(checkpointer, step, train_input)
    else:
        logging.info("No checkpoint found: starting task %s at step %d.", task.name, step)
    train_key, eval_key, decode_key = jax.random.split(root_key, 3)
    return Beginning(state, step, provenance, train_key, eval_key, decode_key)


def _log_what_is_not_loaded(task: SingleTask) -> None:
    for setting in ("init_from_checkpoint_rules", "external_checkpoint_path"):
        if getattr(task.train, setting):
            logging.info("The run has a checkpoint of its own: %s has no effect.", setting)


def restore_input(checkpointer: Checkpointer, step: int, train_input: base_input.BaseInput) -> None:
    """Puts the input where it was at a step, if that was saved."""
    if step == 0:
        return
    if saves_itself(train_input):
        found = checkpointer.restore_input(step, train_input)
    else:
        can_join = type(train_input).join_states is not base_input.BaseInput.join_states
        join = train_input.join_states if can_join else None
        state = checkpointer.restore_input_state(step, join)
        if found := state is not None:
            train_input.set_state(state)
    if not found:
        logging.warning(
            "The position of input %s was not saved with step %d in %s: its first %d batches will "
            "be trained on again.",
            *(train_input.name, step, checkpointer.directory, step),
        )
        return
    logging.info("Input %s continues after %d batches.", train_input.name, step)


def check_input_can_be_saved(task: Any, train_program: Any) -> None:
    """Refuses an input without a position when one is asked for.

    Raises:
      ValueError: naming the input and the field.
    """
    can = train_program.input_state is not None or train_program.input_saves_itself
    if task.train.enable_input_checkpointing and not can:
        source = train_program.train_input
        raise ValueError(
            f"train.enable_input_checkpointing is True, but input {source.name!r} "
            f"({type(source).__name__}) has no state. Implement _get_state_internal and "
            "_set_state_internal, or leave the setting False."
        )

"""Which partitioner and which step a run uses."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from paxml.checkpoint.kinds import CheckpointType
from paxml.partitioning.base import Partitioner, StepFn
from paxml.partitioning.jit import JitPartitioner
from paxml.partitioning.legacy import refuse_auto_sharding
from paxml.task.single_task import SingleTask
from paxml.trainer.eval_step import decode_step_single_learner, eval_step_single_learner
from paxml.trainer.train_step import train_step_single_learner
from paxml.trainer.types import RunningMode


def get_step_fn(mode: RunningMode) -> StepFn:
    """The step of training, evaluation or decoding.

    Raises:
      ValueError: for a combination of modes.
    """
    if mode == RunningMode.TRAIN:
        return cast(StepFn, train_step_single_learner)  # by position: one name differs
    if mode == RunningMode.EVAL:
        return cast(StepFn, eval_step_single_learner)
    if mode == RunningMode.DECODE:
        return cast(StepFn, decode_step_single_learner)
    raise ValueError(f"There is no step function for {mode}; expected TRAIN, EVAL or DECODE.")


def create_partitioner(
    jax_task: SingleTask,
    init_is_eval: bool = False,
    reshard_inputs: bool = False,
    auto_sharding_mode: RunningMode | None = None,
    auto_sharding_input_params: Any = None,
) -> Partitioner:
    """The default partitioner of a task.

    Args:
      jax_task: The task; its model says which mesh it wants.
      init_is_eval: Whether variables are made in evaluation mode.
      reshard_inputs: Has no effect.
      auto_sharding_mode: Not available.
      auto_sharding_input_params: Not available.
    """
    del auto_sharding_input_params
    if auto_sharding_mode is not None:
        refuse_auto_sharding()
    return JitPartitioner(init_is_eval, reshard_inputs, jax_task)


def create_experiment_or_default_partitioner(
    *,
    experiment_config: Any,
    jax_task: SingleTask,
    running_mode: RunningMode,
    checkpoint_type: CheckpointType,
    input_p: Any,
    enable_auto_sharding: bool,
    init_is_eval: bool = False,
) -> Partitioner:
    """The experiment's own partitioner, else the default one.

    Args:
      experiment_config: The experiment.
      jax_task: Its task.
      running_mode: What the job does.
      checkpoint_type: Has no effect.
      input_p: Has no effect.
      enable_auto_sharding: Not available.
      init_is_eval: Whether variables are made in evaluation mode.
    """
    del checkpoint_type, input_p
    own = experiment_config.partitioner()
    if own is not None:
        own.prepare(jax_task)
        return own
    mode = running_mode if enable_auto_sharding else None
    return create_partitioner(jax_task, init_is_eval, auto_sharding_mode=mode)


def filter_nestedmap(full_specs: Any, partial_specs: Any) -> Any:
    """The entries of `full_specs` at the keys that `partial_specs` has.

    Raises:
      ValueError: if lists differ in length.
    """
    if isinstance(partial_specs, Mapping):
        kept = {key: filter_nestedmap(full_specs[key], part) for key, part in partial_specs.items()}
        return type(full_specs)(kept)
    if isinstance(partial_specs, Sequence) and not isinstance(partial_specs, str | bytes):
        if len(full_specs) != len(partial_specs):
            raise ValueError(
                f"filter_nestedmap: lists of {len(full_specs)} and {len(partial_specs)} entries; "
                "expected equal lengths."
            )
        pairs = zip(full_specs, partial_specs, strict=True)
        return type(full_specs)(filter_nestedmap(full, part) for full, part in pairs)
    return full_specs

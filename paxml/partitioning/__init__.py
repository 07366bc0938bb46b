"""Placing state and steps on devices, under its public path."""

from paxml.checkpoint.kinds import CheckpointType
from paxml.partitioning.base import PartitionedStepFn, Partitioner, StepFn
from paxml.partitioning.create import (
    create_experiment_or_default_partitioner,
    create_partitioner,
    filter_nestedmap,
    get_step_fn,
)
from paxml.partitioning.jit import JitPartitioner
from paxml.partitioning.legacy import (
    AutoShardingPjitPartitioner,
    PjitPartitioner,
    PmapPartitioner,
    compile_for_auto_sharding,
)
from paxml.train_states import TrainState, TrainStateProvenance
from paxml.trainer.types import (
    BaseStepFnStaticArgs,
    RunningMode,
    StepFnOutput,
    TrainStateMetadata,
)

__all__ = [
    "AutoShardingPjitPartitioner",
    "BaseStepFnStaticArgs",
    "CheckpointType",
    "JitPartitioner",
    "PartitionedStepFn",
    "Partitioner",
    "PjitPartitioner",
    "PmapPartitioner",
    "RunningMode",
    "StepFn",
    "StepFnOutput",
    "TrainState",
    "TrainStateMetadata",
    "TrainStateProvenance",
    "compile_for_auto_sharding",
    "create_experiment_or_default_partitioner",
    "create_partitioner",
    "filter_nestedmap",
    "get_step_fn",
]

"""Executors, under their public path."""

from paxml.program.base_executor import BaseExecutor
from paxml.program.executor import DefaultExecutor
from paxml.program.stop import InputExhaustedError, TrainingStopped
from paxml.train_states import TrainState, TrainStateProvenance
from paxml.trainer.types import RunningMode

INFO = 0

__all__ = [
    "INFO",
    "BaseExecutor",
    "DefaultExecutor",
    "InputExhaustedError",
    "RunningMode",
    "TrainState",
    "TrainStateProvenance",
    "TrainingStopped",
]

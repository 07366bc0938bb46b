"""Decoding programs, under their public path."""

from paxml.metric.base import BaseMetrics
from paxml.output.formats import EvaluationMode
from paxml.program.decode import DecodeProgramOutput, SingleTaskDecodeProgram
from paxml.train_states import TrainState
from paxml.trainer.types import StepFnOutput

__all__ = [
    "BaseMetrics",
    "DecodeProgramOutput",
    "EvaluationMode",
    "SingleTaskDecodeProgram",
    "StepFnOutput",
    "TrainState",
]

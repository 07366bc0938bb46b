"""Programs, under their public path."""

from paxml.output.formats import EvaluationMode
from paxml.output.write import can_load_written_outputs, get_filename, maybe_write_eval_outputs
from paxml.output.write import write_key_value_pairs as safe_write_key_value_pairs
from paxml.program.base import (
    EvalProgramOutput,
    Program,
    ProgramOutput,
    TrainProgramOutput,
    get_eval_train_state,
    get_summary_base_dir,
)
from paxml.program.evaluate import BaseEvalProgram, SingleTaskEvalProgram
from paxml.program.train import BaseTrainProgram, SingleTaskTrainProgram
from paxml.train_states import TrainState
from paxml.trainer.types import BaseStepFnStaticArgs, StepFnOutput, TrainStateMetadata

__all__ = [
    "BaseEvalProgram",
    "BaseStepFnStaticArgs",
    "BaseTrainProgram",
    "EvalProgramOutput",
    "EvaluationMode",
    "Program",
    "ProgramOutput",
    "SingleTaskEvalProgram",
    "SingleTaskTrainProgram",
    "StepFnOutput",
    "TrainProgramOutput",
    "TrainState",
    "TrainStateMetadata",
    "can_load_written_outputs",
    "get_eval_train_state",
    "get_filename",
    "get_summary_base_dir",
    "maybe_write_eval_outputs",
    "safe_write_key_value_pairs",
]

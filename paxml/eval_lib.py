"""Evaluation, decoding and inference jobs, under their public path."""

from paxml.checkpoint.kinds import CheckpointType
from paxml.evaljob.evaluate import decode, evaluate
from paxml.evaljob.infer import infer_and_write, infer_and_write_pmap
from paxml.evaljob.polling import Polling
from paxml.evaljob.snapshots import release_all_snapshots
from paxml.output.formats import EvaluationMode
from paxml.program.rounds import run_decode_programs, run_eval_programs
from paxml.task.state import NO_PREFIX_KEY
from paxml.train_states import TrainState
from paxml.trainer.types import RunningMode
from praxis.base_layer import PMAP_PARALLEL_AXIS_NAME

__all__ = [
    "NO_PREFIX_KEY",
    "PMAP_PARALLEL_AXIS_NAME",
    "CheckpointType",
    "EvaluationMode",
    "Polling",
    "RunningMode",
    "TrainState",
    "decode",
    "evaluate",
    "infer_and_write",
    "infer_and_write_pmap",
    "release_all_snapshots",
    "run_decode_programs",
    "run_eval_programs",
]

"""Output files and the progress of jobs, under their public path."""

from paxml.evaljob.progress import checkpoint_progress, get_checkpoint_step
from paxml.output.formats import EvaluationMode, OutputFormatType
from paxml.output.load import load_outputs
from paxml.output.sharded import ShardedParallelWriter
from paxml.output.write import JnpEncoder, write_key_value_pairs

__all__ = [
    "EvaluationMode",
    "JnpEncoder",
    "OutputFormatType",
    "ShardedParallelWriter",
    "checkpoint_progress",
    "get_checkpoint_step",
    "load_outputs",
    "write_key_value_pairs",
]

"""Kinds of output files."""

import enum


class EvaluationMode(str, enum.Enum):  # noqa: UP042  # compared with plain strings by old code
    """Which program wrote a file."""

    EVAL = "eval"
    DECODE = "decoder"

    @property
    def output_dir_name(self) -> str:
        """Name of the directory below the log directory."""
        return f"{self.value}_out"

    @property
    def filename_prefix(self) -> str:
        """First part of a file name."""
        return f"{self.value}_out"


class OutputFormatType(enum.Enum):
    """Format of the records that inference writes.

    TFRECORD is known by old configs but cannot be written, which needs TensorFlow.
    """

    TFRECORD = 1
    JSONL = 2

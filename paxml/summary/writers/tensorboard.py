"""Event files of TensorBoard."""

import os
from collections.abc import Mapping

import numpy as np
from tensorboardX.proto.summary_pb2 import (
    Summary,  # pyright: ignore[reportAttributeAccessIssue]  # made at run time by protobuf
)
from tensorboardX.summary import hparams as hparams_summary

from paxml.summary.event_file import EventFileWriter
from paxml.summary.writers.base import HParam, SummaryWriter
from paxml.summary.writers.media import wav_bytes

# Seconds between flushes: a user who watches a run sees it almost live.
_FLUSH_SECS = 5.0


class TensorBoardWriter(SummaryWriter):
    """Writes an event file in its directory."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Opens the file; the directory is created if needed."""
        self._events = EventFileWriter(directory, flush_secs=_FLUSH_SECS)

    def add_scalar(self, tag: str, value: float | int, step: int) -> None:
        self._events.add_scalar(tag, value, step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        self._events.add_text(tag, text, step)

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        self._events.add_histogram(tag, values, step)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        try:
            self._events.add_image(tag, image, step, dataformats="HWC")
        except ModuleNotFoundError as error:
            raise ImportError(
                f"Image summary {tag!r} needs Pillow: install it, or the extra pax[demo]."
            ) from error

    def add_audio(self, tag: str, samples: np.ndarray, step: int, sample_rate: int) -> None:
        entry = Summary.Audio(
            sample_rate=sample_rate,
            num_channels=samples.shape[1],
            length_frames=samples.shape[0],
            encoded_audio_string=wav_bytes(samples, sample_rate),
            content_type="audio/wav",
        )
        self._add(Summary(value=[Summary.Value(tag=tag, audio=entry)]), step)

    def add_hparams(self, hparams: Mapping[str, HParam]) -> None:
        # `add_hparams` of the library would open a second file, which shows as a run of its own,
        # and say that the run was a success.
        experiment, session, _ = hparams_summary(dict(hparams), {"loss": 0.0})
        self._add(experiment, 0)
        self._add(session, 0)

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def _add(self, summary: Summary, step: int) -> None:
        assert self._events.file_writer is not None
        self._events.file_writer.add_summary(summary, step)

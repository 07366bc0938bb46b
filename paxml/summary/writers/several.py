"""Writes the same to several writers."""

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np

from paxml.summary.writers.base import HParam, SummaryWriter


class SeveralWriters(SummaryWriter):
    """Hands everything to each of its writers; without any it writes nothing."""

    def __init__(self, writers: Sequence[SummaryWriter] = ()) -> None:
        """Takes over the writers, which are closed with this one."""
        self.writers = tuple(writers)

    def add_scalar(self, tag: str, value: float | int, step: int) -> None:
        for writer in self.writers:
            writer.add_scalar(tag, value, step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        for writer in self.writers:
            writer.add_text(tag, text, step)

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        for writer in self.writers:
            writer.add_histogram(tag, values, step)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        for writer in self.writers:
            writer.add_image(tag, image, step)

    def add_audio(self, tag: str, samples: np.ndarray, step: int, sample_rate: int) -> None:
        for writer in self.writers:
            writer.add_audio(tag, samples, step, sample_rate)

    def add_hparams(self, hparams: Mapping[str, HParam]) -> None:
        for writer in self.writers:
            writer.add_hparams(hparams)

    def flush(self) -> None:
        for writer in self.writers:
            writer.flush()

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # each is closed, whatever happens to the others
            for writer in reversed(self.writers):
                closing.callback(writer.close)

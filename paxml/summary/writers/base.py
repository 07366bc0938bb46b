"""What a writer of summaries does."""

import abc
import os
from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

Own = TypeVar("Own", bound="SummaryWriter")

HParam = str | int | float | bool


class SummaryWriter(abc.ABC):
    """Writes what belongs to one part of a run, such as training or the evaluation of one input.

    For use with `with`, or with a `close()` at the end.
    """

    @abc.abstractmethod
    def add_scalar(self, tag: str, value: float | int, step: int) -> None:
        """Writes a number."""

    @abc.abstractmethod
    def add_text(self, tag: str, text: str, step: int) -> None:
        """Writes a text in Markdown."""

    @abc.abstractmethod
    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Writes how finite numbers of any shape are spread."""

    @abc.abstractmethod
    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Writes a picture [height, width, channels] of floats in [0, 1] or of uint8."""

    @abc.abstractmethod
    def add_audio(self, tag: str, samples: np.ndarray, step: int, sample_rate: int) -> None:
        """Writes sound [T, channels] in [-1, 1], at so many samples per second."""

    @abc.abstractmethod
    def add_hparams(self, hparams: Mapping[str, HParam]) -> None:
        """Writes the settings of the run by name."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Makes what was written visible; called at the end of each entry."""

    @abc.abstractmethod
    def close(self) -> None:
        """Writes what is left and ends."""

    @classmethod  # noqa: B027  # a hook that may stay empty
    def check_available(cls) -> None:
        """Hook: raises an ImportError if a package is missing; nothing is needed by default."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@runtime_checkable
class OpenWriter(Protocol):
    """Opens a writer in a directory, which is created if needed."""

    def __call__(self, directory: str | os.PathLike[str]) -> SummaryWriter: ...

"""What a source of texts is, and which of its records a number means."""

import abc
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from praxis.config.parameterizable import FiddleBaseParameterizable
from praxis.input.text import files

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class TextSource(FiddleBaseParameterizable, abc.ABC):
    """Texts that can be read in any order.

    Attributes:
      paths: A file, a pattern such as `data/*.txt`, or a list of them. Required.

    Raises:
      ValueError: when built without `paths`.
      FileNotFoundError: when built, if a path is not there or a pattern fits no file.
    """

    paths: Paths = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._files = files.find(self.paths, type(self).__name__)

    @abc.abstractmethod
    def sizes(self) -> list[int]:
        """Number of texts in each file; called once, when the first text is read."""

    @abc.abstractmethod
    def read(self, file: int, index: int) -> str:
        """A text.

        Args:
          file: Which file.
          index: Which text of the file.
        """

    def origin(self, file: int, index: int) -> str:
        """Where a text comes from, for messages."""
        return f"{type(self).__name__} {self._files[file]!r}, record {index}"

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """[files], number of texts up to and with each file."""
        return np.cumsum(self.sizes())

    def _place(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._ends, index, side="right"))
        return file, index - (int(self._ends[file - 1]) if file else 0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> str:
        return self.read(*self._place(index))

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def describe(self, index: int) -> str:
        """Where text number `index` comes from: class, file, place in the file."""
        return self.origin(*self._place(index))

    def check_not_empty(self) -> None:
        """Looks for a first text.

        Raises:
          ValueError: if there is none.
        """
        if not len(self):
            shown = self._files[:3] + ["..."] * (len(self._files) > 3)
            raise ValueError(f"{type(self).__name__}: there is no text in {', '.join(shown)}.")


def field_of(record: Any, field: str, origin: str) -> str:
    """The text of a field of a record.

    Args:
      record: A mapping, as it was read.
      field: Name of the field; dots lead into nested maps.
      origin: Where the record comes from.

    Raises:
      ValueError: if the record has no such field.
      TypeError: if it holds no text.
    """
    value = record
    for name in field.split("."):
        if not isinstance(value, dict):
            raise TypeError(
                f"{origin}: {json.dumps(value)[:80]} is a {type(value).__name__}, expected an "
                f"object with the field {name!r}."
            )
        if name not in value:
            raise ValueError(
                f"{origin}: there is no field {name!r}; it has {sorted(value)}. Set field to one "
                "that holds the text."
            )
        value = value[name]
    if not isinstance(value, str):
        raise TypeError(f"{origin}: field {field!r} is a {type(value).__name__}, expected a text.")
    return value


def field_of_json(text: str, field: str, origin: str) -> str:
    """As `field_of`, for a record in JSON.

    Raises:
      ValueError: also if it is not JSON.
    """
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{origin}: this is not JSON: {error}.") from error
    return field_of(record, field, origin)

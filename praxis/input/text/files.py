"""Files behind a source: which ones, and where their lines are."""

import glob
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_CHUNK_BYTES = 1 << 24
_NEWLINE = 10


def find(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], owner: str) -> list[str]:
    """The files of paths and patterns, those of each pattern sorted by name.

    Args:
      paths: One or several; `*`, `?`, `[...]` and `**` as in `glob`.
      owner: Class of the source, for messages.

    Raises:
      ValueError: if no path is given.
      FileNotFoundError: naming the path that is not there, or the pattern that fits no file.
    """
    found = []
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise ValueError(f"{owner}: paths is empty. Set it to a file, a pattern or a list of them.")
    for path in [os.fspath(path) for path in given]:
        if os.path.isfile(path):
            found.append(path)
        elif matches := sorted(filter(os.path.isfile, glob.glob(path, recursive=True))):
            found.extend(matches)
        else:
            kind = "is a directory" if os.path.isdir(path) else "is not there"
            hint = (
                f"Name its files, e.g. {os.path.join(path, '*')!r}."
                if os.path.isdir(path)
                else f"The working directory is {os.getcwd()!r}."
            )
            raise FileNotFoundError(f"{owner}: {path!r} {kind}, and fits no file. {hint}")
    return found


class Lines(NamedTuple):
    """Where the lines of a file are that are not empty.

    Attributes:
      begin: [N], byte of the first character of each.
      end: [N], byte behind the last one, the line break left out.
      number: [N], which line of the file it is, from 1.
    """

    begin: np.ndarray
    end: np.ndarray
    number: np.ndarray


def find_lines(path: str) -> Lines:
    """Reads a file once and notes where its lines are; 24 bytes of memory a line."""
    breaks = []
    size = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            breaks.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE) + size)
            size += len(chunk)
    end = np.append(np.concatenate(breaks) if breaks else np.empty(0, np.int64), size)
    begin = np.append(0, end[:-1] + 1)
    number = np.arange(1, len(end) + 1)
    keep = end > begin
    with open(path, "rb") as file:
        for i in np.flatnonzero(end - begin == 1):
            file.seek(begin[i])
            keep[i] = file.read(1) != b"\r"
    return Lines(begin[keep], end[keep], number[keep])


def read_text(path: str, begin: int, end: int | None, origin: str) -> str:
    """The text between two bytes of a file, without a carriage return at its end if in a line.

    Args:
      path: The file.
      begin: First byte.
      end: Byte behind the last; None for all that follows, unchanged.
      origin: What it is called in messages.

    Raises:
      ValueError: if it is not UTF-8.
    """
    if end is None:
        return decode(pathlib.Path(path).read_bytes()[begin:], origin)
    with open(path, "rb") as file:
        file.seek(begin)
        return decode(file.read(end - begin).removesuffix(b"\r"), origin)


def decode(data: bytes, origin: str) -> str:
    """Bytes as text.

    Raises:
      ValueError: naming the origin and the first wrong byte, if they are not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{origin}: byte {error.start} of {len(data)} is {data[error.start]:#04x}, expected "
            "UTF-8 text."
        ) from error

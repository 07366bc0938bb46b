"""The `.py` files of the Python that runs, split by name and cut into rows of bytes."""

import dataclasses
import functools
import gzip
import hashlib
import lzma
import pathlib
import sysconfig
from collections.abc import Callable

import numpy as np

Compressor = Callable[[bytes], bytes]

# Never part of a text file, so it can stand in front of each file.
START = 0

# Installed packages are not the standard library, and its tests are missing on some machines.
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}

_EVAL_SHARE = 20  # One file in so many is for evaluation.


@dataclasses.dataclass(frozen=True)
class Split:
    """Files of one side of the split.

    Attributes:
      names: Names relative to the library's folder, sorted.
      texts: Content of each.
    """

    names: list[str]
    texts: list[bytes]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.texts))

    def compressed_bytes(self, compress: Compressor) -> int:
        """Bytes of all files, each compressed by itself."""
        return sum(len(compress(text)) for text in self.texts)


def is_eval(name: str) -> bool:
    """Returns the side of a file, by a hash of its relative name: the same on every machine."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % _EVAL_SHARE == 0


@functools.cache
def load() -> tuple[Split, Split]:
    """Returns the files to train on and those to evaluate with; no file is in both."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    names = sorted(name for name in paths if not _LEFT_OUT & set(name.split("/")))
    sides = [[name for name in names if is_eval(name) == side] for side in (False, True)]
    if not all(sides):
        raise FileNotFoundError(f"There are too few .py files under {root} to train on.")
    train, evaluation = (
        Split(side, [paths[name].read_bytes().replace(b"\0", b"") for name in side])
        for side in sides
    )
    return train, evaluation


def compressors() -> dict[str, Compressor]:
    """Returns the compressors to compare with, each at its strongest."""
    return {
        "gzip": functools.partial(gzip.compress, compresslevel=9, mtime=0),
        "xz": functools.partial(lzma.compress, preset=9),
    }


def train_rows(split: Split, row_length: int) -> dict[str, np.ndarray]:
    """Cuts all files, one after the other, into full rows; a file may share a row with the next.

    Args:
      split: The files.
      row_length: T, bytes predicted in a row.

    Returns:
      [number of rows, T] each: `ids` (START, then the bytes before), `labels` (the bytes),
      `segment_ids` (from 1, one a file) and `segment_pos` (position in the row's part of the file).
    """
    labels = np.concatenate([np.frombuffer(text, np.uint8) for text in split.texts])
    ids = np.concatenate(
        [np.frombuffer(bytes([START]) + text[:-1], np.uint8) for text in split.texts if text]
    )
    file_of_byte = np.repeat(np.arange(len(split.texts)), list(map(len, split.texts)))
    num_rows = len(labels) // row_length
    rows = [x[: num_rows * row_length].reshape(num_rows, row_length) for x in (ids, labels)]
    files = file_of_byte[: num_rows * row_length].reshape(num_rows, row_length)
    starts = np.diff(files, axis=1, prepend=files[:, :1]) != 0
    columns = np.arange(row_length)
    start_column = np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
    return {
        "ids": rows[0].astype(np.int32),
        "labels": rows[1].astype(np.int32),
        "segment_ids": (1 + np.cumsum(starts, axis=1)).astype(np.int32),
        "segment_pos": (columns - start_column).astype(np.int32),
        "weights": np.ones((num_rows, row_length), np.float32),
        "paddings": np.zeros((num_rows, row_length), np.float32),
    }


def eval_rows(
    split: Split, row_length: int, stride: int, multiple_of: int = 1
) -> dict[str, np.ndarray]:
    """Cuts each file into overlapping windows in which every byte counts exactly once.

    A window's bytes that the one before has counted are there as context, with weight 0.

    Args:
      split: The files.
      row_length: T, bytes in a window.
      stride: New bytes of each window after the first, at most T.
      multiple_of: The number of rows is filled up to a multiple, by rows that count nothing.

    Returns:
      As `train_rows`, with 1 in `paddings` behind the end of a file.
    """
    fields = ("ids", "labels", "segment_ids", "segment_pos", "weights", "paddings")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in fields}
    columns = np.arange(row_length)
    for text in filter(None, split.texts):
        labels = np.frombuffer(text, np.uint8).astype(np.int32)
        ids = np.concatenate([[START], labels[:-1]]).astype(np.int32)
        counted = 0
        for begin in _window_starts(len(text), row_length, stride):
            size = min(row_length, len(text) - begin)
            inside = columns < size
            pad = (0, row_length - size)
            rows["ids"].append(np.pad(ids[begin : begin + size], pad))
            rows["labels"].append(np.pad(labels[begin : begin + size], pad))
            rows["segment_ids"].append(inside.astype(np.int32))
            rows["segment_pos"].append(np.where(inside, columns, 0).astype(np.int32))
            new = inside & (columns >= counted - begin)
            rows["weights"].append(new.astype(np.float32))
            rows["paddings"].append((~inside).astype(np.float32))
            counted = begin + size
    stacked = {name: np.stack(parts) for name, parts in rows.items()}
    missing = -len(stacked["ids"]) % multiple_of
    filled = {name: np.pad(x, ((0, missing), (0, 0))) for name, x in stacked.items()}
    filled["paddings"][len(stacked["ids"]) :] = 1.0
    return filled


def _window_starts(num_bytes: int, row_length: int, stride: int) -> list[int]:
    last = max(0, num_bytes - row_length)
    return [*range(0, last, stride), last]

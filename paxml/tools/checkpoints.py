"""Looks at checkpoints: names, headers and sizes of files; no device is used."""

import dataclasses
import datetime
import math
import os
from collections.abc import Mapping

import numpy as np
import tensorstore as ts
from etils import epath

from paxml.checkpoint.health import SavedArray, array_problem, saved_arrays, structure_problem
from paxml.checkpoint.metadata import metadata_exists, restore_metadata
from paxml.checkpoint.paths import (
    STATE_ITEM_NAME,
    PaxStepNameFormat,
    absolute_path,
    get_step_from_checkpoint_asset,
    is_checkpoint_asset,
)
from praxis.inspection.table import Column, Table, size_text

_CHECKPOINTS = "checkpoints"
_SECONDS = "%Y-%m-%d %H:%M:%S"


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """One step on disk.

    Attributes:
      step: Number of updates.
      path: Its directory.
      num_bytes: Size of all its files.
      saved_at: When its directory was last changed.
      problem: Why it cannot be restored, None if nothing is found.
    """

    step: int
    path: epath.Path
    num_bytes: int
    saved_at: datetime.datetime
    problem: str | None


def list_checkpoints(directory: epath.PathLike) -> list[CheckpointInfo]:
    """Returns the checkpoints of a run by step, damaged ones too.

    Args:
      directory: The job_log_dir, its `checkpoints` directory, or one checkpoint.

    Raises:
      ValueError: if there are none.
    """
    return [_info(path) for path in _step_directories(directory)]


def checkpoints_table(found: list[CheckpointInfo]) -> Table:
    """Returns the list as a table."""
    columns = [
        Column("step", is_number=True),
        Column("size", is_number=True),
        Column("saved"),
        Column("state"),
        Column("directory"),
    ]
    rows = [
        (
            str(info.step),
            size_text(info.num_bytes),
            info.saved_at.strftime(_SECONDS),
            info.problem or "complete",
            info.path.name,
        )
        for info in found
    ]
    totals = (f"{len(found)} in all", size_text(sum(info.num_bytes for info in found)), "", "", "")
    return Table(columns, rows, totals)


def find_checkpoint(directory: epath.PathLike, step: int | None = None) -> epath.Path:
    """Returns the directory of a step, by default of the newest one that is complete.

    Args:
      directory: As for `list_checkpoints`.
      step: Which one.

    Raises:
      ValueError: if there is none, naming those there are; if it is damaged, saying how.
    """
    paths = {get_step_from_checkpoint_asset(path): path for path in _step_directories(directory)}
    if step is not None:
        if step not in paths:
            raise ValueError(f"{directory} has no checkpoint of step {step}; it has {list(paths)}.")
        if problem := structure_problem(paths[step]):
            raise ValueError(f"{paths[step]} cannot be read: {problem}.")
        return paths[step]
    problems = {}
    for number, path in sorted(paths.items(), reverse=True):
        problem = structure_problem(path)
        if problem is None:
            return path
        problems[number] = problem
    raise ValueError(f"{directory} has no checkpoint that can be read: {problems}.")


def arrays_table(path: epath.Path) -> Table:
    """Lists the arrays of a checkpoint: name, shape, dtype, number of elements, size."""
    columns = [
        Column("array"),
        Column("shape"),
        Column("dtype"),
        Column("count", is_number=True),
        Column("size", is_number=True),
    ]
    arrays = saved_arrays(path)
    rows = [
        (
            name,
            "x".join(map(str, array.shape)) or "scalar",
            array.dtype.name,
            f"{math.prod(array.shape):,}",
            size_text(_num_bytes(array)),
        )
        for name, array in sorted(arrays.items())
    ]
    count = sum(math.prod(array.shape) for array in arrays.values())
    size = sum(map(_num_bytes, arrays.values()))
    return Table(columns, rows, (f"{len(rows)} arrays", "", "", f"{count:,}", size_text(size)))


def format_text(path: epath.Path) -> str:
    """Says where a checkpoint is and what format it has."""
    version = restore_metadata(path).version if metadata_exists(path) else "unknown"
    return f"{path}, format {version}"


def arrays_diff(before: epath.Path, after: epath.Path, *, values: bool = False) -> Table:
    """Lists the arrays in which two checkpoints differ; what one of them lacks stays empty.

    Args:
      before: Directory of a step.
      after: Directory of another.
      values: Whether to read and compare the arrays, too. This reads all of both checkpoints, one
        array at a time.
    """
    old, new = saved_arrays(before), saved_arrays(after)
    columns = [Column("array"), Column(before.name), Column(after.name)]
    rows = [
        (name, _text(old, name), _text(new, name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if not values:
        return Table(columns, rows)
    rows = [(*row, "") for row in rows]
    for name in sorted(old):
        if old[name] == new.get(name):
            difference = _largest_difference(_read(before, name), _read(after, name))
            if difference:
                rows.append((name, str(old[name]), str(new[name]), f"{difference:.3g}"))
    return Table([*columns, Column("largest difference", is_number=True)], rows)


def _step_directories(directory: epath.PathLike) -> list[epath.Path]:
    path = absolute_path(directory)
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if is_checkpoint_asset(path) and (path / STATE_ITEM_NAME).exists():
        return [path]
    for base in (path / _CHECKPOINTS, path):
        found = sorted(PaxStepNameFormat().find_all(base), key=lambda metadata: metadata.step)
        if found:
            return [metadata.path for metadata in found]
    raise ValueError(
        f"{path} has no checkpoints. Give the job_log_dir of a run, its `{_CHECKPOINTS}` "
        "directory, or one checkpoint in there."
    )


def _info(path: epath.Path) -> CheckpointInfo:
    return CheckpointInfo(
        step=get_step_from_checkpoint_asset(path),
        path=path,
        num_bytes=_size_of(path),
        saved_at=datetime.datetime.fromtimestamp(path.stat().mtime).astimezone(),
        problem=structure_problem(path) or array_problem(path),
    )


def _size_of(path: epath.Path) -> int:
    if not path.is_dir():
        return path.stat().length
    return sum(_size_of(child) for child in path.iterdir())


def _text(arrays: Mapping[str, SavedArray], name: str) -> str:
    return str(arrays[name]) if name in arrays else ""


def _num_bytes(array: SavedArray) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _read(path: epath.Path, name: str) -> np.ndarray:
    array = os.fspath(path / STATE_ITEM_NAME / name)
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": array}}
    return ts.open(spec, read=True).result().read().result()


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two entries; infinite where only one of two is not a number."""
    if a.size == 0 or np.array_equal(a, b):
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (np.isnan(x) & np.isnan(y)) | (x == y)
    with np.errstate(invalid="ignore"):  # infinity minus itself
        difference = np.where(same, 0.0, np.abs(x - y))
    return float(np.max(np.where(np.isnan(difference), np.inf, difference)))

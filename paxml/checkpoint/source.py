"""Single arrays of a checkpoint, read under other names, dtypes and shardings."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from paxml.checkpoint import naming
from paxml.checkpoint.checksums import checksum_problem
from paxml.checkpoint.compare import differently_padded
from paxml.checkpoint.handlers import StateHandler, StateRestore, restore_args
from paxml.checkpoint.health import (
    SavedArray,
    array_problem,
    has_tree_file,
    saved_arrays,
    structure_problem,
    unpadded_variables,
)
from paxml.checkpoint.paths import STATE_ITEM_NAME, PaxStepNameFormat, absolute_path
from paxml.checkpoint.steps import UnreadableCheckpointError


class Wanted(NamedTuple):
    """An array to read.

    Attributes:
      saved_name: Its name in the checkpoint.
      array: Shape, dtype and sharding that it gets; no sharding means the default device.
      unpadded: Its shape before padding for a mesh, and its dtype.
    """

    saved_name: str
    array: Any
    unpadded: SavedArray


class CheckpointSource:
    """A checkpoint of some run, of which any part can be read.

    Attributes:
      path: Of the step directory.
      arrays: Shape before padding, as far as known, and dtype of each array, by its name on disk,
        such as `mdl_vars.params.lin.w`.
    """

    def __init__(self, directory: epath.PathLike, step: int | None = None) -> None:
        """Looks at the headers of a checkpoint.

        Args:
          directory: The one that holds the `checkpoint_*` directories.
          step: Which of them; None is the newest that is complete.

        Raises:
          ValueError: if there is none, or not of this step; names the steps there are.
          UnreadableCheckpointError: if it is incomplete or damaged.
        """
        self.path = _find(absolute_path(directory), step)
        self._stored = saved_arrays(self.path)
        self._unpadded = unpadded_variables(self.path)
        self.arrays = {**self._stored, **{n: self._unpadded[n] for n in self._known()}}

    def _known(self) -> set[str]:
        return self._stored.keys() & self._unpadded.keys()

    def read(self, wanted: Mapping[str, Wanted]) -> dict[str, jax.Array]:
        """Reads arrays, each into its own shape, dtype and sharding.

        Args:
          wanted: By the name that the caller gives to the result.

        Returns:
          Arrays by that name. One saved array may be asked for several times.

        Raises:
          ValueError: if an array is not in the checkpoint, or has another shape, or is an integer
            where a floating number is wanted or the other way round. All of them are listed.
        """
        padded = self._check(wanted)
        found: dict[str, jax.Array] = {}
        left = dict(wanted)
        while left:
            # Each pass reads every saved array at most once.
            batch = {want.saved_name: name for name, want in left.items()}
            found |= self._read_once({name: left.pop(name) for name in batch.values()}, padded)
        return found

    def _check(self, wanted: Mapping[str, Wanted]) -> set[str]:
        """Returns the names of the arrays that have to be cut or filled with zeros."""
        problems = []
        for name, (saved_name, _, unpadded) in wanted.items():
            saved = self.arrays.get(saved_name)
            if saved is None:
                problems.append(f"{name}: there is no {saved_name!r}")
            elif jnp.issubdtype(saved.dtype, jnp.inexact) != jnp.issubdtype(
                unpadded.dtype, jnp.inexact
            ):
                problems.append(f"{name}: {saved_name!r} is {saved}, wanted {unpadded}")
        self._raise_if(problems)

        stored = {n: SavedArray(self._stored[w.saved_name].shape, w.array.dtype) for n, w in
                  wanted.items()}  # fmt: skip
        padded = differently_padded(
            stored,
            {n: SavedArray(tuple(w.array.shape), w.array.dtype) for n, w in wanted.items()},
            saved_unpadded={
                n: SavedArray(self._unpadded[w.saved_name].shape, w.array.dtype)
                for n, w in wanted.items()
                if w.saved_name in self._unpadded
            },
            wanted_unpadded={n: w.unpadded for n, w in wanted.items()},
        )
        self._raise_if(
            f"{name}: {want.saved_name!r} is {self.arrays[want.saved_name]}, wanted {want.unpadded}"
            for name, want in wanted.items()
            if name not in padded and not self._same_shape(want)
        )
        return padded

    def _same_shape(self, want: Wanted) -> bool:
        same = self._stored[want.saved_name].shape == tuple(want.array.shape)
        return same and (
            want.saved_name not in self._unpadded
            or self._unpadded[want.saved_name].shape == want.unpadded.shape
        )

    def _raise_if(self, problems: Any) -> None:
        if problems := sorted(problems):
            raise ValueError(
                f"Checkpoint {self.path} does not have what is to be loaded:\n  "
                + "\n  ".join(problems)
            )

    def _read_once(self, wanted: Mapping[str, Wanted], padded: set[str]) -> dict[str, jax.Array]:
        arrays = {want.saved_name: want.array for want in wanted.values()}
        arguments = {
            want.saved_name: restore_args(want.array, name not in padded)
            for name, want in wanted.items()
        }
        whole = has_tree_file(self.path)
        restored = StateHandler().restore(
            self.path / STATE_ITEM_NAME,
            args=StateRestore(
                naming.nest(arrays),
                restore_args=naming.nest(arguments),
                # Without Orbax's own tree file the names are looked up one by one.
                transforms=None if whole else {},
                partial_restore=whole,
            ),
        )
        return {name: naming.look_up(restored, want.saved_name) for name, want in wanted.items()}


def _find(directory: epath.Path, step: int | None) -> epath.Path:
    """The path of a complete checkpoint of a step, or of the newest step."""
    names = PaxStepNameFormat()
    found = {metadata.step: metadata.path for metadata in names.find_all(directory)}
    if not found:
        where = os.fspath(directory)
        if not directory.exists():
            raise ValueError(f"Checkpoint directory {where!r} does not exist.")
        raise ValueError(
            f"No checkpoints were found in directory {where!r}. Give the directory that holds "
            "checkpoint_<step>, e.g. <job_log_dir>/checkpoints."
        )
    if step is not None and step not in found:
        raise ValueError(
            f"{os.fspath(directory)} has no checkpoint of step {step}; there are steps "
            f"{', '.join(map(str, sorted(found)))}."
        )
    path = found[max(found) if step is None else step]
    problem = structure_problem(path) or array_problem(path) or checksum_problem(path)
    if problem is not None:
        raise UnreadableCheckpointError(f"Checkpoint {path} cannot be read: {problem}.")
    return path

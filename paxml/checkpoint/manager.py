"""Saves and restores train states step by step, with Orbax."""

import datetime
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from absl import logging
from etils import epath
from orbax import checkpoint as ocp

from paxml.checkpoint import naming
from paxml.checkpoint.checksums import checksum_problem
from paxml.checkpoint.compare import check_fits
from paxml.checkpoint.handlers import (
    InputStateHandler,
    InputStateRestore,
    InputStateSave,
    MetadataHandler,
    MetadataSave,
    RestoresItself,
    SavesItself,
    StateHandler,
    StateRestore,
    StateSave,
    restore_args,
)
from paxml.checkpoint.health import (
    SavedArray,
    array_problem,
    has_tree_file,
    saved_arrays,
    structure_problem,
    unpadded_variables,
)
from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.metadata import METADATA_ITEM_NAME, make_metadata
from paxml.checkpoint.paths import (
    INPUT_ITEM_NAME,
    STATE_ITEM_NAME,
    absolute_path,
    is_local,
)
from paxml.checkpoint.retention import preservation_policy
from paxml.checkpoint.steps import ReadableSteps, UnreadableCheckpointError, set_aside
from paxml.checkpoint.trash import TRASH_DIRECTORY, Trash

State = TypeVar("State")

# A block of most file systems: a disk without one is full.
_PROBE_BYTES = 4096


class CheckpointSaveError(RuntimeError):
    """A checkpoint could not be written."""


class Checkpointer:
    """Checkpoints of one run, in one directory.

    The layout is that of published Pax checkpoints: `checkpoint_00000010/` with `metadata`, one
    Zarr directory an array under `state`, and optionally the input position under `train_input`.
    A checkpoint is written under a temporary name and renamed when it is complete.

    Incomplete or damaged checkpoints (an empty directory, a missing file) are skipped with a
    warning and never deleted; if a new one needs the name, the old one is renamed.

    Attributes:
      directory: Where the checkpoints are.
      read_only: Whether nothing is saved, created or removed.

    Example:
      checkpointer = Checkpointer("run/checkpoints", save_interval_steps=1000, max_to_keep=3)
      for step in range(start, end):
          if checkpointer.should_save(step):
              checkpointer.save(step, state)
          state = train_step(state)
      checkpointer.close()
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        save_interval_steps: int | None,
        max_to_keep: int | None,
        keep_time_interval: datetime.timedelta | None = None,
        async_save: bool = True,
        read_only: bool = False,
        todelete_subdir: str | None = None,
    ) -> None:
        """Opens the directory, creates it if needed, and removes what unfinished saves left.

        Args:
          directory: Where the checkpoints are.
          save_interval_steps: Checkpoints are due at multiples of it; None or 0 means each step.
          max_to_keep: How many of the newest are kept; None keeps all.
          keep_time_interval: Older ones are kept at this distance in time; None keeps none.
          async_save: Whether arrays are written in the background, after a copy to the host.
          read_only: Whether the directory belongs to another job: nothing is saved, created or
            removed.
          todelete_subdir: If given, checkpoints are moved into this directory beside them in place
            of being deleted.
        """
        self.directory = absolute_path(directory)
        self._steps = ReadableSteps(CheckpointType.GDA)
        self._saving: int | None = None
        self.read_only = read_only
        self._trash = None
        if not (read_only or todelete_subdir) and is_local(self.directory):
            self._trash, todelete_subdir = Trash(self.directory), TRASH_DIRECTORY
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=(STATE_ITEM_NAME, METADATA_ITEM_NAME, INPUT_ITEM_NAME),
            item_handlers={
                STATE_ITEM_NAME: StateHandler(),
                METADATA_ITEM_NAME: MetadataHandler(),
                INPUT_ITEM_NAME: InputStateHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                # Orbax warns about an interval that it will not use.
                save_interval_steps=0 if read_only else save_interval_steps or 1,
                preservation_policy=preservation_policy(max_to_keep, keep_time_interval),
                step_name_format=self._steps,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                enable_async_checkpointing=async_save,
                enable_background_delete=not read_only,
                read_only=read_only,
                todelete_subdir=None if read_only else todelete_subdir,
            ),
        )

    def all_steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints on disk, in order."""
        return self._steps.good_steps(self.directory)

    def damaged_steps(self) -> list[int]:
        """Returns the steps whose checkpoints were found incomplete or damaged, in order."""
        return sorted(self._steps.hidden(self.directory))

    def latest_step(self) -> int | None:
        """Returns the newest step whose checkpoint is complete, or None.

        Warns for each newer one that is skipped because something is missing.
        """
        known = len(self._steps.problems)
        latest = self._steps.latest(self.directory)
        if len(self._steps.problems) > known:
            self._reload()
        return latest

    def should_save(self, step: int) -> bool:
        """Whether a checkpoint is due: the first one, at the interval, or at a preemption."""
        return not self.read_only and self._manager.should_save(step)

    def save(
        self,
        step: int,
        train_state: Any,
        *,
        train_input: SavesItself | None = None,
        input_state: bytes | None = None,
        unpadded_shapes: Any = None,
        force: bool = False,
    ) -> bool:
        """Writes a checkpoint if one is due.

        Returns when the arrays are copied to the host (async_save) or written; the caller may then
        donate them. An error of an earlier save in the background is raised here.

        Args:
          step: Number of updates that made this state.
          train_state: Tree with `mdl_vars`, of arrays; masked leaves are skipped.
          train_input: An input whose `save(path)` writes its position.
          input_state: The position itself, instead.
          unpadded_shapes: Shapes of the state before padding for the mesh; None if there is none.
          force: Saves although none is due; still not twice the same step.

        Returns:
          Whether a checkpoint was written.

        Raises:
          ValueError: if both `train_input` and `input_state` are given.
          CheckpointSaveError: if this save, or an earlier one in the background, failed.
        """
        if train_input is not None and input_state is not None:
            raise ValueError("Give train_input or input_state, not both.")
        if self.read_only:
            return False
        if not (force or self.should_save(step)) or self._manager.latest_step() == step:
            return False
        # An error of the previous save must not be taken for one of this.
        self.wait()
        if self._trash is not None:
            self._trash.empty()
        self._set_aside_damaged(step)
        shapes = unpadded_shapes or jax.eval_shape(lambda tree: tree, train_state)
        metadata = make_metadata(
            train_state=train_state, train_state_unpadded_shape_dtype_struct=shapes
        )
        items: dict[str, ocp.args.CheckpointArgs] = {
            STATE_ITEM_NAME: StateSave(naming.nest(naming.named_leaves(train_state))),
            METADATA_ITEM_NAME: MetadataSave(metadata.to_dict()),
        }
        position = train_input if input_state is None else input_state
        if position is not None:
            items[INPUT_ITEM_NAME] = InputStateSave(position)
        self._saving = step

        def write() -> bool:
            self._check_writable()
            return self._manager.save(step, args=ocp.args.Composite(**items), force=True)

        return self._surface_errors(write)

    def restore(
        self,
        step: int,
        abstract_train_state: State,
        *,
        unpadded_shapes: Any = None,
        partial: bool = False,
    ) -> State:
        """Reads the checkpoint of a step.

        Args:
          step: Which one.
          abstract_train_state: The tree to fill, with leaves that have shape, dtype and sharding;
            no sharding means the default device. Masked leaves stay as they are.
          unpadded_shapes: Shapes of the state before padding. With them, arrays may have been
            padded for another mesh when they were saved.
          partial: Whether the checkpoint may hold more than the tree, which is not read then.

        Returns:
          A tree like the abstract one.

        Raises:
          UnreadableCheckpointError: if the checkpoint is incomplete or damaged, naming the newest
            complete one. From then on it is hidden from `latest_step`.
          CheckpointMismatchError: if it holds other arrays than the tree, before any is read.
          ValueError: if there is no checkpoint of this step.
        """
        directory = self._checked_directory(step)
        wanted = naming.named_leaves(abstract_train_state)
        saved = saved_arrays(directory)
        if partial:
            saved = {name: array for name, array in saved.items() if name in wanted}
        padded = check_fits(
            os.fspath(directory),
            saved,
            _described(wanted),
            saved_unpadded=unpadded_variables(directory),
            wanted_unpadded=_described(naming.named_leaves(unpadded_shapes)),
        )
        arguments = naming.nest(
            {name: restore_args(leaf, name not in padded) for name, leaf in wanted.items()}
        )
        if problem := checksum_problem(directory):
            raise self._unreadable(directory, problem)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=StateRestore(
                        naming.nest(wanted),
                        restore_args=arguments,
                        # Without Orbax's own tree file the names are looked up one by one.
                        transforms=None if has_tree_file(directory) else {},
                        partial_restore=partial and has_tree_file(directory),
                    )
                ),
            )[STATE_ITEM_NAME]
        except Exception as error:
            cause = _first_cause(error)
            # TensorStore names the damaged file; anything else, like full memory, is not damage.
            if os.fspath(directory) not in cause:
                raise
            raise self._unreadable(directory, cause) from error
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: naming.restored_leaf(restored, path, leaf), abstract_train_state
        )

    def restore_latest(
        self, abstract_train_state: State, *, unpadded_shapes: Any = None
    ) -> tuple[int, State] | None:
        """Reads the newest checkpoint that can be read.

        A damaged one is skipped with a warning; with several processes it is an error, since the
        others may have read it.

        Args:
          abstract_train_state: As in `restore`.
          unpadded_shapes: As in `restore`.

        Returns:
          Step and state, or None if there is no checkpoint.

        Raises:
          CheckpointMismatchError: as in `restore`.
        """
        while (step := self.latest_step()) is not None:
            try:
                return step, self.restore(
                    step, abstract_train_state, unpadded_shapes=unpadded_shapes
                )
            except UnreadableCheckpointError:
                if jax.process_count() > 1:
                    raise
        return None

    def restore_input_state(
        self, step: int, join: Callable[[list[bytes]], bytes] | None = None
    ) -> bytes | None:
        """Returns the input position of this process, or None with a warning if none was saved.

        Args:
          step: Of the checkpoint.
          join: Makes one position of those that another number of processes saved.

        Raises:
          FileNotFoundError: if it was saved by another number of processes, without `join`.
        """
        return self._restore_input(step, InputStateRestore(join=join))

    def restore_input(self, step: int, train_input: RestoresItself) -> bool:
        """Lets an input read the position that its own `save` wrote.

        Returns:
          False, with a warning, if none was saved.

        Raises:
          FileNotFoundError: if it was saved by another number of processes.
        """
        return self._restore_input(step, InputStateRestore(train_input)) is not None

    def _restore_input(self, step: int, how: InputStateRestore) -> bytes | None:
        directory = self._checked_directory(step)
        if not (directory / INPUT_ITEM_NAME).exists():
            warnings.warn(
                f"Checkpoint {directory} has no {INPUT_ITEM_NAME}: the input starts at its "
                "beginning, and its first batches are seen again.",
                stacklevel=3,
            )
            return None
        items = ocp.args.Composite(**{INPUT_ITEM_NAME: how})
        return self._manager.restore(step, args=items)[INPUT_ITEM_NAME]

    def wait(self) -> None:
        """Blocks until the save in the background is complete.

        Raises:
          CheckpointSaveError: if it failed.
        """
        self._surface_errors(self._manager.wait_until_finished)
        self._saving = None

    def check_for_errors(self) -> None:
        """Raises the error of a save in the background that has failed by now; does not wait."""
        self._surface_errors(self._manager.check_for_errors)

    def reached_preemption(self, step: int) -> bool:
        """Whether all processes have to stop at this step, because one is to be taken away."""
        return self._manager.reached_preemption(step)

    def close(self) -> None:
        """Waits for the save in the background and for deletions, and frees the threads.

        Raises:
          CheckpointSaveError: if the save failed.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
            if self._trash is not None:
                self._trash.close()

    def _checked_directory(self, step: int) -> epath.Path:
        """Returns the path of a checkpoint after the checks that read no array."""
        found = self._steps.find_step(self.directory, step).path
        problem = (
            structure_problem(found)
            or array_problem(found)
            or checksum_problem(found, headers_only=True)
        )
        if problem is not None:
            raise self._unreadable(found, problem)
        return found

    def _unreadable(self, path: epath.Path, problem: str) -> UnreadableCheckpointError:
        error = self._steps.unreadable(self.directory, path, problem)
        self._reload()
        return error

    def _reload(self) -> None:
        """Makes Orbax forget what is hidden by now; it would also forget a save under way."""
        self.wait()
        self._manager.reload()

    def _check_writable(self) -> None:
        """Fails at once where Orbax, saving in the background, would wait for minutes."""
        if jax.process_index() == 0 and is_local(self.directory):
            probe = self.directory / ".writable"
            probe.write_bytes(bytes(_PROBE_BYTES))
            probe.unlink()

    def _set_aside_damaged(self, step: int) -> None:
        path = self._steps.hidden_path(self.directory, step)
        if path is not None and jax.process_index() == 0:
            target = set_aside(path)
            self._steps.problems.pop(os.fspath(path))
            logging.warning("The damaged checkpoint %s is now %s.", path, target)

    def _surface_errors(self, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except Exception as error:
            good = [step for step in self.all_steps() if step != self._saving]
            raise CheckpointSaveError(
                f"Saving step {self._saving} under {self.directory} failed: {error}. "
                f"Complete checkpoints: steps {', '.join(map(str, good)) or 'none'}. Check free "
                "space, quota and permissions, then start again."
            ) from error


def _described(named: dict[str, Any]) -> dict[str, SavedArray]:
    return {name: SavedArray(tuple(leaf.shape), leaf.dtype) for name, leaf in named.items()}


def _first_cause(error: BaseException) -> str:
    """Returns the text of the error that began it: TensorStore's, which names the file."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error).strip().rstrip(".")

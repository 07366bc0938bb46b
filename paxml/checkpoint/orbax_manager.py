"""The old interface of the checkpoints of a run."""

import dataclasses
from typing import Any

from etils import epath
from orbax import checkpoint as ocp

from paxml.checkpoint.kinds import CheckpointType
from paxml.checkpoint.manager import Checkpointer
from paxml.checkpoint.metadata import metadata_exists, restore_metadata
from paxml.checkpoint.paths import STATE_ITEM_NAME, make_checkpoint_step_dir
from paxml.checkpoint.pax_handler import NO_OCDBT, NO_TRANSFORMATIONS, with_shardings
from paxml.checkpoint.version import get_version
from paxml.train_states import TrainState


@dataclasses.dataclass
class CheckpointManagerOptions(ocp.CheckpointManagerOptions):
    """Orbax's options.

    Of these, OrbaxCheckpointManager looks at `save_interval_steps`, `max_to_keep`,
    `keep_time_interval`, `read_only` and:

    Attributes:
      todelete_subdir: Where checkpoints go in place of being deleted; None deletes them.
      cleanup_tmp_directories: Has no effect: leftovers of unfinished saves are always removed.
    """

    todelete_subdir: str | None = None
    cleanup_tmp_directories: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.save_interval_steps = self.save_interval_steps or 1


class OrbaxCheckpointManager:
    """`paxml.checkpoint.manager.Checkpointer` with the arguments of older versions."""

    def __init__(
        self,
        directory: epath.PathLike,
        checkpointer: ocp.AbstractCheckpointer,
        train_input_checkpointer: Any = None,
        options: ocp.CheckpointManagerOptions | None = None,
        checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED,
        tensorstore_use_ocdbt: bool | None = None,
        aux_checkpointers: Any = None,
        version_step_hint: int | None = None,
    ) -> None:
        """Opens the directory, creates it if needed.

        Args:
          directory: Where the checkpoints are.
          checkpointer: An Orbax checkpointer; an `AsyncCheckpointer` saves in the background.
          train_input_checkpointer: If given, the input given to `save` and `restore` is too.
          options: Intervals and what is kept.
          checkpoint_type: GDA. FLAX files are read and written by `restore_checkpoint` and
            `save_checkpoint` alone.
          tensorstore_use_ocdbt: Not available.
          aux_checkpointers: Not available.
          version_step_hint: A step to look for the version of the format at.

        Raises:
          ValueError: without a type, for FLAX, or with auxiliary items.
          NotImplementedError: with OCDBT.
        """
        if checkpoint_type != CheckpointType.GDA:
            raise ValueError(
                f"OrbaxCheckpointManager: checkpoint_type is {checkpoint_type}, expected "
                "CheckpointType.GDA, which models without a mesh use too. "
                "paxml.checkpoints.restore_checkpoint reads FLAX files."
            )
        if aux_checkpointers:
            raise ValueError(
                f"OrbaxCheckpointManager: aux_checkpointers {sorted(aux_checkpointers)} are not "
                "available; put the values into TrainState.extra_state."
            )
        if tensorstore_use_ocdbt:
            raise NotImplementedError(f"tensorstore_use_ocdbt is True. {NO_OCDBT}")
        options = options or CheckpointManagerOptions()
        self._saves_input = train_input_checkpointer is not None
        self._version_step_hint = version_step_hint
        self._checkpointer = Checkpointer(
            directory,
            save_interval_steps=options.save_interval_steps,
            max_to_keep=options.max_to_keep,
            keep_time_interval=options.keep_time_interval,
            async_save=isinstance(checkpointer, ocp.AsyncCheckpointer),
            read_only=options.read_only,
            todelete_subdir=options.todelete_subdir,
        )

    @property
    def directory(self) -> epath.Path:
        """Where the checkpoints are."""
        return self._checkpointer.directory

    @property
    def version(self) -> float:
        """Version of the format: that of the checkpoints that are there, else of new ones."""
        hint = self._version_step_hint
        steps = self.all_steps() if hint is None else [hint]
        for step in steps:
            path = make_checkpoint_step_dir(self.directory, step, CheckpointType.GDA)
            if metadata_exists(path):
                return restore_metadata(path).version
        return get_version()

    def all_steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return self._checkpointer.all_steps()

    def latest_step(self) -> int | None:
        """The newest step with a complete checkpoint, or None."""
        return self._checkpointer.latest_step()

    def should_save(self, step: int) -> bool:
        """Whether a checkpoint is due."""
        return self._checkpointer.should_save(step)

    def reached_preemption(self, step: int) -> bool:
        """Whether the machine is about to be taken away at this step."""
        return self._checkpointer.reached_preemption(step)

    def save(
        self,
        step: int,
        train_state: TrainState,
        train_state_unpadded_shape_dtype_struct: Any = None,
        train_input_pipeline: Any = None,
        force: bool = False,
        aux_items: Any = None,
    ) -> bool:
        """Writes a checkpoint if one is due, or if forced; returns whether it did.

        Raises:
          ValueError: with auxiliary items.
        """
        _refuse_aux(aux_items)
        return self._checkpointer.save(
            step,
            train_state,
            train_input=train_input_pipeline if self._saves_input else None,
            unpadded_shapes=train_state_unpadded_shape_dtype_struct,
            force=force,
        )

    def restore(
        self,
        step: int,
        train_state: TrainState,
        train_state_unpadded_shape_dtype_struct: Any = None,
        train_input_pipeline: Any = None,
        restore_kwargs: Any = None,
        aux_items: Any = None,
        aux_restore_kwargs: Any = None,
    ) -> TrainState:
        """Reads a checkpoint.

        Args:
          step: Which one.
          train_state: The state to fill, of arrays or shapes.
          train_state_unpadded_shape_dtype_struct: Shapes before padding for a mesh.
          train_input_pipeline: Gets its position back, if inputs are saved here.
          restore_kwargs: `specs` and `mesh`: where the arrays go.
          aux_items: Not available.
          aux_restore_kwargs: Not available.

        Raises:
          ValueError: with auxiliary items, or as `Checkpointer.restore`.
          NotImplementedError: with transformations.
        """
        _refuse_aux(aux_items or aux_restore_kwargs)
        kwargs = dict(restore_kwargs or {})
        kwargs = {**kwargs, **kwargs.pop(STATE_ITEM_NAME, {})}
        if kwargs.get("transforms"):
            raise NotImplementedError(NO_TRANSFORMATIONS)
        if kwargs.get("specs") is not None and kwargs.get("mesh") is not None:
            train_state = with_shardings(train_state, kwargs["specs"], kwargs["mesh"])
        restored = self._checkpointer.restore(
            step, train_state, unpadded_shapes=train_state_unpadded_shape_dtype_struct
        )
        if self._saves_input and train_input_pipeline is not None:
            self._checkpointer.restore_input(step, train_input_pipeline)
        return restored

    def wait_until_finished(self) -> None:
        """Waits for the save in the background; raises its error."""
        self._checkpointer.wait()

    def check_for_errors(self) -> None:
        """Raises the error of a save in the background that has failed by now."""
        self._checkpointer.check_for_errors()

    def close(self) -> None:
        """Waits, and frees the threads."""
        self._checkpointer.close()


def _refuse_aux(items: Any) -> None:
    if items:
        raise ValueError(
            f"OrbaxCheckpointManager: auxiliary items {sorted(items)} are not available; put the "
            "values into TrainState.extra_state."
        )

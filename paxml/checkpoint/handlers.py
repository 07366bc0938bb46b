"""How Orbax writes and reads the items of a checkpoint: state, metadata and input."""

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
from etils import epath
from orbax import checkpoint as ocp

from paxml.checkpoint.checksums import write_checksums


class StateHandler(ocp.PyTreeCheckpointHandler):
    """Writes a nested dict of arrays, one directory an array (Zarr, a file a shard)."""

    def __init__(self) -> None:
        super().__init__(use_ocdbt=False)

    def finalize(self, directory: epath.Path) -> None:
        # Alone, a process has nothing to merge or to compare, and Orbax would warn at each save.
        if jax.process_count() > 1:
            super().finalize(directory)
        write_checksums(directory)


@ocp.args.register_with_handler(StateHandler, for_save=True)
@dataclasses.dataclass
class StateSave(ocp.args.PyTreeSave):
    """Arguments of `StateHandler` for saving: those of its base class."""


@ocp.args.register_with_handler(StateHandler, for_restore=True)
@dataclasses.dataclass
class StateRestore(ocp.args.PyTreeRestore):
    """Arguments of `StateHandler` for restoring: those of its base class."""


class MetadataHandler(ocp.JsonCheckpointHandler):
    """Writes the metadata."""

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        write_checksums(directory)


@ocp.args.register_with_handler(MetadataHandler, for_save=True)
@dataclasses.dataclass
class MetadataSave(ocp.args.JsonSave):
    """Arguments of `MetadataHandler` for saving: those of its base class."""


@ocp.args.register_with_handler(MetadataHandler, for_restore=True)
@dataclasses.dataclass
class MetadataRestore(ocp.args.JsonRestore):
    """Arguments of `MetadataHandler` for restoring: those of its base class."""


def restore_args(leaf: Any, same_shape: bool) -> ocp.ArrayRestoreArgs:
    """How to read an array into a shape, dtype and sharding.

    Args:
      leaf: Has them; no sharding means the default device.
      same_shape: Whether another saved shape is an error; else zeros at the end are cut off or
        added.
    """
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.ArrayRestoreArgs(
        restore_type=jax.Array,
        sharding=sharding,
        global_shape=tuple(leaf.shape),
        dtype=leaf.dtype,
        strict=same_shape,
    )


@runtime_checkable
class SavesItself(Protocol):
    """An input that writes its position under a path."""

    def save(self, checkpoint_path: epath.Path, /) -> Any: ...


@runtime_checkable
class RestoresItself(Protocol):
    """An input that reads its position from the path that it wrote it under."""

    def restore(self, checkpoint_path: epath.Path, /) -> Any: ...


_FILE_NAME = re.compile(r"process_\d+-of-(\d+)")


def input_file_name() -> str:
    """Returns the name of the file with the input position of this process."""
    return f"process_{jax.process_index()}-of-{jax.process_count()}"


class InputStateHandler(ocp.CheckpointHandler):
    """Writes the input position of each process into a file of its own.

    Saving blocks: the position must be that of this step, and the next batch moves it.
    """

    def save(self, directory: epath.Path, args: "InputStateSave") -> None:
        path = directory / input_file_name()
        if isinstance(args.item, bytes):
            path.write_bytes(args.item)
        else:
            args.item.save(path)

    def finalize(self, directory: epath.Path) -> None:
        write_checksums(directory)

    def restore(self, directory: epath.Path, args: "InputStateRestore | None" = None) -> bytes:
        """Returns the bytes that this process wrote; none if the input reads them itself.

        Raises:
          FileNotFoundError: if the checkpoint was written by another number of processes, and
            `join` is not given.
        """
        try:
            path = self.find(directory)
        except FileNotFoundError:
            if args is None or args.join is None:
                raise
            return args.join(self.read_all(directory))
        if args is None or args.item is None:
            return path.read_bytes()
        args.item.restore(path)
        return b""

    def read_all(self, directory: epath.Path) -> list[bytes]:
        """Returns the bytes that each process wrote, in their order.

        Raises:
          FileNotFoundError: if there are none, or some of them are missing.
        """
        matches = (_FILE_NAME.fullmatch(path.name) for path in directory.iterdir())
        counts = {int(match[1]) for match in matches if match}
        paths = [
            directory / f"process_{index}-of-{count}" for count in counts for index in range(count)
        ]
        missing = [path.name for path in paths if not path.exists()]
        if len(counts) != 1 or missing:
            raise FileNotFoundError(
                f"{os.fspath(directory)} should have the input position of each process that "
                f"saved it; missing: {', '.join(missing) or 'all'}."
            )
        return [path.read_bytes() for path in paths]

    def find(self, directory: epath.Path) -> epath.Path:
        """Returns the path of this process; an input may have added an ending to it.

        Raises:
          FileNotFoundError: if the checkpoint was written by another number of processes.
        """
        path = directory / input_file_name()
        names = [found.name for found in directory.iterdir()]
        if any(name == path.name or name.startswith(f"{path.name}.") for name in names):
            return path
        counts = sorted({int(match[1]) for name in names if (match := _FILE_NAME.match(name))})
        raise FileNotFoundError(
            f"{os.fspath(directory)} has no {path.name}: it was written by "
            f"{' or '.join(map(str, counts)) or 'no'} processes, this run has "
            f"{jax.process_count()}. Resume with as many processes, or remove the directory to "
            "start the input from its beginning."
        )


@ocp.args.register_with_handler(InputStateHandler, for_save=True)
@dataclasses.dataclass
class InputStateSave(ocp.args.CheckpointArgs):
    """Arguments of `InputStateHandler.save`.

    Attributes:
      item: The position as bytes, or an input with `save(path)`.
    """

    item: bytes | SavesItself


@ocp.args.register_with_handler(InputStateHandler, for_restore=True)
@dataclasses.dataclass
class InputStateRestore(ocp.args.CheckpointArgs):
    """Arguments of `InputStateHandler.restore`.

    Attributes:
      item: An input whose `restore(path)` reads what its `save(path)` wrote; None for bytes.
      join: Makes the bytes for this process of those that another number of processes wrote.
    """

    item: RestoresItself | None = None
    join: Callable[[list[bytes]], bytes] | None = None

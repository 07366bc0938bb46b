"""Names of checkpoints: from a step to a directory name and back."""

import dataclasses
import os
import re
from collections.abc import Iterator

from etils import epath
from orbax import checkpoint as ocp

from paxml.checkpoint.kinds import CheckpointType

CHECKPOINT_PREFIX = "checkpoint_"
TMP_PREFIX = "tmp_"
STATE_ITEM_NAME = "state"
INPUT_ITEM_NAME = "train_input"
COMMIT_SUCCESS_FILE = "commit_success.txt"

_FIXED_LENGTH = 8
_NAME = re.compile(rf"(?:{CHECKPOINT_PREFIX})?(\d+)")
_OLD_TMP_NAME = re.compile(rf"{TMP_PREFIX}\d+\.{CHECKPOINT_PREFIX}(\d+)")
_ORBAX_TMP_NAME = re.compile(rf"(?:{CHECKPOINT_PREFIX})?(\d+)\.orbax-checkpoint-tmp.*")


def absolute_path(path: epath.PathLike) -> epath.Path:
    """Returns the absolute path, as Orbax wants it; paths with a scheme stay as they are."""
    text = os.fspath(path)
    return epath.Path(text if "://" in text else os.path.abspath(text))


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is in a file system, not in an object store such as gs://."""
    return "://" not in os.fspath(path)


def checkpoint_prefix(checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED) -> str:
    """Returns what stands before the digits in the name of a new checkpoint."""
    del checkpoint_type
    return CHECKPOINT_PREFIX


def checkpoint_name_fixed_length(
    checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED,
) -> int | None:
    """Returns the number of digits that a step is padded to, or None for no padding."""
    return None if checkpoint_type == CheckpointType.FLAX else _FIXED_LENGTH


def checkpoint_name(
    step: int,
    checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED,
    use_digit_step_subdirectory: bool = False,
) -> str:
    """Returns the name of the checkpoint of `step`.

    Example:
      >>> checkpoint_name(10), checkpoint_name(10, CheckpointType.FLAX)
      ('checkpoint_00000010', 'checkpoint_10')
      >>> checkpoint_name(10, use_digit_step_subdirectory=True)
      '10'
    """
    if use_digit_step_subdirectory:
        return str(step)
    width = checkpoint_name_fixed_length(checkpoint_type) or 0
    return f"{checkpoint_prefix(checkpoint_type)}{step:0{width}d}"


def make_checkpoint_step_dir(
    checkpoint_dir: epath.PathLike,
    step: int,
    checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED,
    use_digit_step_subdirectory: bool = False,
) -> epath.Path:
    """Returns the path of the checkpoint of `step`; creates nothing."""
    return epath.Path(checkpoint_dir) / checkpoint_name(
        step, checkpoint_type, use_digit_step_subdirectory
    )


def is_checkpoint_asset(x: epath.PathLike) -> bool:
    """Whether the last part of the path is the name of a finished checkpoint."""
    return _NAME.fullmatch(epath.Path(x).name) is not None


def is_tmp_checkpoint_asset(x: epath.PathLike) -> bool:
    """Whether the last part of the path is the name of an unfinished checkpoint."""
    name = epath.Path(x).name
    return bool(_OLD_TMP_NAME.fullmatch(name) or _ORBAX_TMP_NAME.fullmatch(name))


def is_legacy_flax_checkpoint(path: epath.PathLike) -> bool:
    """Whether the path is a checkpoint of the oldest kind, a single msgpack file."""
    path = epath.Path(path)
    return path.name.startswith(CHECKPOINT_PREFIX) and is_checkpoint_asset(path) and path.is_file()


def get_step_from_checkpoint_asset(checkpoint_dir: epath.PathLike) -> int:
    """Returns the step in the name of a finished or unfinished checkpoint.

    Raises:
      ValueError: if the name is not one of a checkpoint.
    """
    name = epath.Path(checkpoint_dir).name
    for pattern in (_NAME, _OLD_TMP_NAME, _ORBAX_TMP_NAME):
        if match := pattern.fullmatch(name):
            return int(match.group(1))
    raise ValueError(
        f"{os.fspath(checkpoint_dir)!r} is not the name of a checkpoint; expected "
        f"{CHECKPOINT_PREFIX}<step>, e.g. {checkpoint_name(10)}."
    )


@dataclasses.dataclass(frozen=True)
class PaxStepNameFormat(ocp.path.step.NameFormat[ocp.path.step.Metadata]):
    """Tells Orbax how checkpoints are named.

    Reading takes any number of digits, with or without the prefix.

    Attributes:
      checkpoint_type: Decides the padding of new names.
      use_digit_step_subdirectory: Whether names are plain digits. Such directories can only be
        read.
    """

    checkpoint_type: CheckpointType = CheckpointType.UNSPECIFIED
    use_digit_step_subdirectory: bool = False

    def build_name(self, step: int) -> str:
        if self.use_digit_step_subdirectory:
            raise NotImplementedError(
                f"Step {step}: directories named by digits alone can be read, not written. "
                "Set use_digit_step_subdirectory to False."
            )
        return checkpoint_name(step, self.checkpoint_type)

    def build_metadata(
        self, step_path: epath.PathLike, step: int | None = None
    ) -> ocp.path.step.Metadata | None:
        """Returns step and path, or None if the path is no checkpoint or that of another step."""
        step_path = epath.Path(step_path)
        if not is_checkpoint_asset(step_path) or not step_path.exists():
            return None
        found = get_step_from_checkpoint_asset(step_path)
        return ocp.path.step.Metadata(step=found, path=step_path) if step in (None, found) else None

    def find_all(self, base_path: epath.PathLike) -> Iterator[ocp.path.step.Metadata]:
        base_path = epath.Path(base_path)
        if not base_path.is_dir():
            return
        for path in base_path.iterdir():
            if metadata := self.build_metadata(path):
                yield metadata

    def find_metadata(self, base_path: epath.PathLike, step: int) -> ocp.path.step.Metadata | None:
        """Returns step and path of a checkpoint, or None if there is none of that step."""
        usual = make_checkpoint_step_dir(base_path, step, self.checkpoint_type)
        if metadata := self.build_metadata(usual):
            return metadata
        return next((m for m in self.find_all(base_path) if m.step == step), None)

    def find_step(self, base_path: epath.PathLike, step: int) -> ocp.path.step.Metadata:
        if metadata := self.find_metadata(base_path, step):
            return metadata
        raise ValueError(f"{os.fspath(base_path)} has no checkpoint of step {step}.")


def latest_checkpoint_if_exists(checkpoint_dir: epath.PathLike) -> epath.Path | None:
    """Returns the path of the checkpoint of the highest step, or None."""
    newest = max(PaxStepNameFormat().find_all(checkpoint_dir), key=lambda m: m.step, default=None)
    return newest and newest.path


def latest_checkpoint(checkpoint_dir: epath.PathLike) -> epath.Path:
    """Returns the path of the checkpoint of the highest step.

    Raises:
      ValueError: if the directory does not exist or has no checkpoints.
    """
    if path := latest_checkpoint_if_exists(checkpoint_dir):
        return path
    where = os.fspath(checkpoint_dir)
    if not epath.Path(checkpoint_dir).exists():
        raise ValueError(f"Checkpoint directory {where!r} does not exist.")
    raise ValueError(f"No checkpoints were found in directory {where!r}.")


def retrieve_latest_checkpoint_step_if_exists(checkpoint_dir: epath.PathLike) -> int | None:
    """Returns the highest step with a checkpoint, or None."""
    path = latest_checkpoint_if_exists(checkpoint_dir)
    return None if path is None else get_step_from_checkpoint_asset(path)


def retrieve_latest_checkpoint_step(checkpoint_dir: epath.PathLike) -> int:
    """Returns the highest step with a checkpoint.

    Raises:
      ValueError: if the directory does not exist or has no checkpoints.
    """
    return get_step_from_checkpoint_asset(latest_checkpoint(checkpoint_dir))


def is_tfhub_dir(directory: epath.PathLike) -> bool:
    """Whether the directory is a TensorFlow Hub module, which holds no Pax checkpoints."""
    return (epath.Path(directory) / "tfhub_module.pb").exists()

"""Copies of checkpoints that jobs of other versions made to keep them from deletion."""

import shutil
from typing import Any

import jax
from absl import logging
from etils import epath
from orbax import checkpoint as ocp

from paxml.checkpoint.paths import PaxStepNameFormat

SNAPSHOTS = "_SNAPSHOTS"


def release_all_snapshots(
    checkpoint_dir: epath.PathLike,
    step_prefix: str | None = None,
    step_format_fixed_length: int | None = None,
    step_name_format: Any = None,
) -> None:
    """Removes the copies in a directory of checkpoints.

    Jobs of this version make none: they read a checkpoint whole before they work on it.

    Args:
      checkpoint_dir: Directory of the checkpoints.
      step_prefix: First part of the names, without `step_name_format`.
      step_format_fixed_length: Digits in the names, without `step_name_format`.
      step_name_format: How the checkpoints are named; by default as the trainer names them.
    """
    if step_name_format is None:
        step_name_format = PaxStepNameFormat()
        if step_prefix is not None or step_format_fixed_length is not None:
            step_name_format = ocp.path.step.standard_name_format(
                step_prefix=step_prefix, step_format_fixed_length=step_format_fixed_length
            )
    if jax.process_index() != 0:
        return
    for metadata in step_name_format.find_all(epath.Path(checkpoint_dir) / SNAPSHOTS):
        logging.info("Removing the snapshot %s.", metadata.path)
        shutil.rmtree(metadata.path)

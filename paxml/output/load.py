"""Reads what evaluation and decoding wrote."""

import pickle
import re
from typing import Any

from etils import epath


def load_outputs(
    basedir: epath.PathLike, pname: str, fname_prefix: str, step: int | None = None
) -> list[tuple[Any, Any]]:
    """Reads the pairs of all shards of one step.

    The files are pickles: read only those that you trust.

    Args:
      basedir: Directory of the outputs, e.g. `<job_log_dir>/decoder_out`.
      pname: Name of the input.
      fname_prefix: First part of the file names, `decoder_out` or `eval_out`.
      step: Step of the weights; None if there is only one.

    Returns:
      (key, value) pairs, those of shard 0 first.

    Raises:
      ValueError: if there are no outputs, none of this step, or those of several steps and `step`
        is None; also if a shard is missing.
    """
    directory = epath.Path(basedir) / pname
    shards = _shards_by_step(directory, fname_prefix)
    available = f"There are outputs of steps {sorted(shards)}."
    if not shards:
        raise ValueError(f"{directory} has no files {fname_prefix}_<step>_shard_<n>.pickle.")
    if step is None and len(shards) > 1:
        raise ValueError(f"{directory}: give step=. {available}")
    step = next(iter(shards)) if step is None else step
    if step not in shards:
        raise ValueError(f"{directory} has no outputs of step {step}. {available}")
    found = shards[step]
    if missing := sorted(set(range(max(found) + 1)) - set(found)):
        raise ValueError(
            f"{directory}: shards {missing} of {fname_prefix} at step {step} are missing; there "
            f"are {sorted(found)}."
        )
    return [pair for _, path in sorted(found.items()) for pair in pickle.loads(path.read_bytes())]


def _shards_by_step(directory: epath.Path, prefix: str) -> dict[int, dict[int, epath.Path]]:
    pattern = re.compile(rf"{re.escape(prefix)}_(\d+)_shard_(\d+)\.pickle")
    shards: dict[int, dict[int, epath.Path]] = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        if match := pattern.fullmatch(path.name):
            shards.setdefault(int(match[1]), {})[int(match[2])] = path
    return shards

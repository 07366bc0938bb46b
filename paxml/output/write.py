"""Outputs of each example, as a pickle and as JSON lines."""

import dataclasses
import json
import pickle
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from paxml.output.formats import EvaluationMode

Pairs = Sequence[tuple[Any, Any]]


class JnpEncoder(json.JSONEncoder):
    """JSON of arrays as lists, bytes as UTF-8 and dataclasses as objects."""

    def default(self, o: Any) -> Any:
        """The JSON of what is none by itself."""
        if isinstance(o, np.ndarray | jax.Array):
            return np.asarray(o).tolist()
        if isinstance(o, np.generic):
            return o.item()
        if isinstance(o, bytes):
            return o.decode("utf-8", errors="replace")
        if dataclasses.is_dataclass(o) and not isinstance(o, type):
            return dataclasses.asdict(o)
        return super().default(o)


def get_filename(step: int, prefix: str) -> str:
    """Name of an output file of this process, without its ending."""
    return f"{prefix}_{int(step)}_shard_{jax.process_index()}"


def maybe_write_eval_outputs(
    mode: EvaluationMode,
    output_dir: epath.PathLike,
    step: int,
    eval_outputs: Sequence[dict[str, Any]],
    write_pickle: bool = True,
) -> None:
    """Writes one entry for each example, in the first process, if there are any outputs.

    Args:
      mode: Says how the file is called.
      output_dir: Where to write.
      step: Step of the weights.
      eval_outputs: For each batch, arrays with a row for each example.
      write_pickle: Whether to write the pickle beside the JSON lines.
    """
    pairs = [pair for batch in eval_outputs for pair in _unstack(batch)]
    if pairs and jax.process_index() == 0:
        path = epath.Path(output_dir) / get_filename(step, mode.filename_prefix)
        write_key_value_pairs(path, pairs, write_pickle=write_pickle)


def write_key_value_pairs(
    filename: epath.PathLike,
    key_value_pairs: Pairs,
    cast_to_ndarray: bool = True,
    write_pickle: bool = True,
) -> None:
    """Writes `filename.jsonl` with the values, and `filename.pickle` with the pairs.

    Nothing is left of a file that could not be written whole.

    Args:
      filename: Path without an ending.
      key_value_pairs: What to write.
      cast_to_ndarray: Whether arrays in the pickle become NumPy arrays.
      write_pickle: Whether to write the pickle.

    Raises:
      TypeError: if a value cannot become JSON, naming its key and type.
    """
    path = epath.Path(filename)
    lines = [_json_line(key, value) for key, value in key_value_pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    if write_pickle:
        pairs = key_value_pairs
        if cast_to_ndarray:
            pairs = [(key, jax.tree.map(_to_numpy, value)) for key, value in pairs]
        _replace(path.with_name(f"{path.name}.pickle"), pickle.dumps(list(pairs)))
    _replace(path.with_name(f"{path.name}.jsonl"), "".join(lines).encode())


def _json_line(key: Any, value: Any) -> str:
    try:
        return json.dumps(value, cls=JnpEncoder) + "\n"
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The output with key {key!r} is a {type(value).__name__} that cannot be written as "
            f"JSON: {error}. Return arrays, numbers, texts, lists and dicts."
        ) from error


def _unstack(batch: dict[str, Any]) -> list[tuple[None, dict[str, Any]]]:
    """(None, row) for each example; arrays without a batch dimension are left out."""
    flat, structure = jax.tree.flatten(batch)
    sizes = {leaf.shape[0] for leaf in flat if np.ndim(leaf)}
    if len(sizes) > 1:
        raise ValueError(
            f"Per-example outputs have batch sizes {sorted(sizes)}; expected one row for each "
            "example in every array."
        )
    if not sizes or any(np.ndim(leaf) == 0 for leaf in flat):
        return []
    return [(None, structure.unflatten([leaf[row] for leaf in flat])) for row in range(sizes.pop())]


def _to_numpy(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf


def _replace(path: epath.Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def can_load_written_outputs(
    basedir: epath.PathLike, pname: str, mode: EvaluationMode, step: int
) -> bool:
    """Whether the outputs of an input at a step are there already, all of them.

    Args:
      basedir: The log directory.
      pname: Name of the input.
      mode: Which program wrote them.
      step: Step of the weights.
    """
    return written_outputs(basedir, pname, mode, step).exists()


def written_outputs(
    basedir: epath.PathLike, pname: str, mode: EvaluationMode, step: int
) -> epath.Path:
    """The file that is there when all outputs of an input at a step are."""
    # The first process writes for all, the lines last.
    name = f"{mode.filename_prefix}_{int(step)}_shard_0.jsonl"
    return epath.Path(basedir) / mode.output_dir_name / pname / name

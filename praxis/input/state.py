"""State of inputs: JSON in bytes, and files that are written whole or not at all."""

import json
import os
import pathlib
import tempfile
from typing import Any


def write_atomically(path: str | pathlib.PurePath, data: bytes) -> None:
    """Writes a file; a reader sees the old content or all of the new one."""
    target = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


# JSON has no tuples, but Grain's packing tells states apart by them: with lists it loses sequences.
_TUPLE = "__tuple__"


def _mark_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mark_tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_mark_tuples(item) for item in value]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    return value


def _restore_tuple(value: dict[str, Any]) -> Any:
    return tuple(value[_TUPLE]) if set(value) == {_TUPLE} else value


def encode(**values: Any) -> bytes:
    """Values of JSON types, and tuples, as bytes."""
    return json.dumps(_mark_tuples(values), sort_keys=True).encode()


def decode(state: bytes, *names: str) -> list[Any]:
    """The named values of bytes made by `encode`.

    Raises:
      ValueError: if the bytes are not those of a state with exactly these names.
    """
    try:
        values = json.loads(state.decode(), object_hook=_restore_tuple)
    except ValueError as error:
        raise ValueError(f"the state is not JSON, perhaps truncated: {error}.") from error
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise ValueError(f"the state holds {values}, expected the entries {sorted(names)}.")
    return [values[name] for name in names]

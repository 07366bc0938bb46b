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


def encode(**values: Any) -> bytes:
    """Values of JSON types as bytes."""
    return json.dumps(values, sort_keys=True).encode()


def decode(state: bytes, *names: str) -> list[Any]:
    """The named values of bytes made by `encode`.

    Raises:
      ValueError: if the bytes are not those of a state with exactly these names.
    """
    try:
        values = json.loads(state.decode())
    except ValueError as error:
        raise ValueError(f"the state is not JSON, perhaps truncated: {error}.") from error
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise ValueError(f"the state holds {values}, expected the entries {sorted(names)}.")
    return [values[name] for name in names]

"""Reads scalars back from event files, and from lines of JSON."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]  # made at run time by protobuf
)

from paxml.summary.writers.jsonl import FILE_NAME as JSON_LINES

# A record is: length (8 bytes), its checksum (4), the data, its checksum (4).
_HEADER = struct.Struct("<Q4x")
_FOOTER_BYTES = 4


def read_events(path: str | os.PathLike[str]) -> Iterator[Event]:
    """Yields the events of one file; stops before an event that is still being written."""
    data = Path(path).read_bytes()
    start = 0
    while start + _HEADER.size <= len(data):
        (length,) = _HEADER.unpack_from(data, start)
        start += _HEADER.size
        if start + length + _FOOTER_BYTES > len(data):
            return
        yield Event.FromString(data[start : start + length])
        start += length + _FOOTER_BYTES


def read_scalars(directory: str | os.PathLike[str], tag: str) -> dict[int, float]:
    """Returns the values of a tag by step, from all files of a writer's directory.

    Where a resumed run wrote a step again, the later value counts.
    """
    values = _json_scalars(Path(directory) / JSON_LINES, tag)
    for path in sorted(Path(directory).glob("*.tfevents.*")):
        for event in read_events(path):
            for value in event.summary.value:
                if value.tag == tag:
                    values[event.step] = value.simple_value
    return dict(sorted(values.items()))


def _json_scalars(path: Path, tag: str) -> dict[int, float]:
    """Values of a tag by step from lines of JSON; a last line still being written is left out."""
    values: dict[int, float] = {}
    if not path.exists():
        return values
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        entry = json.loads(line)
        if tag in entry:
            values[entry["step"]] = float(entry[tag])  # NaN and infinities are texts
    return values

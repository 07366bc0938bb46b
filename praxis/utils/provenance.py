"""Where an example comes from: enumeration ids and patterns of sharded files."""

import re
from collections.abc import MutableMapping
from typing import Any

import numpy as np

PROVENANCE_PREFIX = "_seqio_provenance"
INDEX_WITHIN_SHARD_KEY = f"{PROVENANCE_PREFIX}/index_within_shard"
SHARD_INDEX_KEY = f"{PROVENANCE_PREFIX}/shard_index"
NUM_SHARDS_KEY = f"{PROVENANCE_PREFIX}/num_shards"
ENUM_PROVENANCE_KEYS = (INDEX_WITHIN_SHARD_KEY, SHARD_INDEX_KEY, NUM_SHARDS_KEY)

_SHARDED_FILE = re.compile(r"(?P<stem>.*)@(?P<count>\d+|\*)", re.DOTALL)


def get_enumeration_id(example: MutableMapping[str, Any], pop: bool = False) -> str | None:
    """A text that names one example of a dataset: `key=value/key=value/key=value`.

    Args:
      example: May hold the three fields of `ENUM_PROVENANCE_KEYS`.
      pop: Remove the fields from the example.

    Returns:
      The text, or None if any of the fields is missing.
    """
    if any(key not in example for key in ENUM_PROVENANCE_KEYS):
        return None
    read = example.pop if pop else example.__getitem__
    return "/".join(f"{key}={int(np.asarray(read(key)))}" for key in ENUM_PROVENANCE_KEYS)


def sharded_file_pattern_to_glob(file_pattern: str) -> str:
    """Turns `name@10` into `name-?????-of-00010`, and `name@*` into `name-?????-of-*`.

    A pattern without a shard count is returned as it is.

    Raises:
      ValueError: if there is a comma: one pattern at a time.
    """
    if "," in file_pattern:
        raise ValueError(
            f"File pattern {file_pattern!r} contains a comma; pass one pattern at a time."
        )
    match = _SHARDED_FILE.fullmatch(file_pattern)
    if match is None:
        return file_pattern
    count = match["count"]
    return f"{match['stem']}-?????-of-{count if count == '*' else f'{int(count):05d}'}"

"""Checksums of the files of a checkpoint, by which a flipped bit is noticed.

Zarr chunks have none of their own: other bytes may well decompress to other numbers.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
from etils import epath

from paxml.checkpoint.paths import is_local

CHECKSUMS_FILE = "checksums.json"
# What says how to read the rest; small, so that they are checked before anything is read.
HEADER_FILES = frozenset({"metadata", "_METADATA", ".zarray"})

_BLOCK_BYTES = 1 << 20
_THREADS = 8


def write_checksums(directory: epath.Path) -> None:
    """Writes size and CRC-32 of each file of an item, in a file of its own beside them.

    The first process reads back what all have written, mostly from the cache of the system. On a
    remote file system that would be slow, and these have checksums of their own: nothing is done.
    """
    if jax.process_index() != 0 or not is_local(directory):
        return
    names = sorted(_files(directory))
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = pool.map(lambda name: _checksum(directory / name), names)
        files = dict(zip(names, sums, strict=True))
    (directory / CHECKSUMS_FILE).write_text(json.dumps({"crc32": files}))


def checksum_problem(step_directory: epath.Path, *, headers_only: bool = False) -> str | None:
    """Says which file of a checkpoint is not as it was written, or None.

    Several processes check a part each. Items without checksums, as in checkpoints of other
    versions, are taken as they are.

    Args:
      step_directory: Of the checkpoint.
      headers_only: Whether to look at the small files alone that say how to read the rest.
    """
    wanted: list[tuple[epath.Path, tuple[int, int]]] = []
    for manifest in sorted(step_directory.glob(f"*/{CHECKSUMS_FILE}")):
        try:
            files = json.loads(manifest.read_text())["crc32"]
            wanted += [
                (manifest.parent / name, (int(size), int(crc)))
                for name, (size, crc) in files.items()
                if not headers_only or name.rpartition("/")[2] in HEADER_FILES
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{manifest} is not a list of checksums"
    if not headers_only:
        wanted = wanted[jax.process_index() :: jax.process_count()]
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = pool.map(lambda file: _file_problem(*file), wanted)
        return next(filter(None, problems), None)


def _file_problem(path: epath.Path, wanted: tuple[int, int]) -> str | None:
    if not path.exists():
        return f"{path} is missing"
    size, crc = _checksum(path)
    if size != wanted[0]:
        return f"{path} has {size} bytes, {wanted[0]} were written"
    if crc != wanted[1]:
        return f"{path} has other bytes than were written: CRC-32 {crc:08x}, was {wanted[1]:08x}"
    return None


def _checksum(path: epath.Path) -> tuple[int, int]:
    """Number of bytes, and their CRC-32."""
    size = crc = 0
    with path.open("rb") as file:
        read: Callable[[int], bytes] = file.read
        while block := read(_BLOCK_BYTES):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _files(directory: epath.Path) -> Iterator[str]:
    """Paths of the files below a directory, relative to it."""
    for folder, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), directory)

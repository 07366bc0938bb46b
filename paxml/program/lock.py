"""One training run at a time in a log directory."""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from etils import epath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = "train.lock"

_HELD = (errno.EACCES, errno.EAGAIN)
# The system keeps two processes apart, but not two runs of one process.
_own: set[str] = set()
_own_lock = threading.Lock()


class DirectoryInUseError(RuntimeError):
    """Another training run writes into the log directory."""


@contextlib.contextmanager
def exclusive_use(job_log_dir: epath.PathLike) -> Iterator[None]:
    """Keeps other training runs out of a directory while the `with` lasts.

    `train.lock` says who is there. What counts is a lock of the operating system on that file: it
    ends with the process that holds it, however that ends, and is not passed on to processes
    that it started. So a file that a killed run left behind stops nobody, on whatever machine and
    whoever has its process id by now.

    Only the first process of a run takes part. Where files cannot be locked, as in object stores,
    two runs are not noticed; a warning says so for local paths.

    Raises:
      DirectoryInUseError: naming the process, its machine and its start.
    """
    path = os.path.realpath(os.path.join(os.fspath(job_log_dir), LOCK_FILE))
    if jax.process_index() != 0 or fcntl is None or "://" in os.fspath(job_log_dir):
        yield
        return
    with _only_in_this_process(path):
        file = _lock(path)
        try:
            yield
        finally:
            if file is not None:
                os.unlink(path)
                file.close()


@contextlib.contextmanager
def _only_in_this_process(path: str) -> Iterator[None]:
    with _own_lock:
        if path in _own:
            raise DirectoryInUseError(_message(path, "another run of this process"))
        _own.add(path)
    try:
        yield
    finally:
        with _own_lock:
            _own.discard(path)


def _lock(path: str) -> Any:
    """Opens and locks the file; None where that is not possible."""
    assert fcntl is not None
    while True:
        file = open(path, "a+")  # noqa: SIM115  # stays open as long as the lock
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read()
            file.close()
            if error.errno not in _HELD:
                logging.warning("%s cannot be locked: %s.", path, error.strerror)
                return None
            raise DirectoryInUseError(_message(path, _described(holder))) from error
        if _is_same_file(file, path):
            break
        file.close()  # its owner removed it between our opening and locking it
    file.truncate(0)
    file.write(json.dumps(_self()))
    file.flush()
    return file


def _is_same_file(file: Any, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _self() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv),
    }


def _described(holder: str) -> str:
    try:
        found = json.loads(holder)
        return (
            f"process {found['pid']} on {found['host']}, started {found['started']} "
            f"({found['command']})"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"


def _message(path: str, holder: str) -> str:
    return (
        f"{os.path.dirname(path)} is in use: {holder} is training in it. Two runs would destroy "
        "each other's checkpoints. Stop it, or give another job_log_dir."
    )

"""Event files whose entries are in the file when `flush` returns."""

import os
import socket
import threading
import time
from typing import Any

import tensorboardX
from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]  # made at run time by protobuf
)
from tensorboardX.record_writer import directory_check, masked_crc32c, open_file

_FILE_VERSION = "brain.Event:2"


class EventFile:
    """One event file, written by whoever adds an event.

    tensorboardX hands events to a thread instead: its `flush` does not wait for that thread, so
    what precedes a checkpoint could be missing after a kill, and once a full disk has ended the
    thread, adding events blocks for ever.
    """

    def __init__(self, directory: str, *, flush_secs: float) -> None:
        """Makes a file with a name of its own.

        Args:
          directory: Is created if needed; may be remote as far as tensorboardX knows it.
          flush_secs: Entries are on disk at the latest with the first one that comes this long
            after the last flush, in seconds.
        """
        self._directory = directory
        directory_check(directory)
        self._path = _free_path(directory)
        self._file = open_file(self._path)
        self._flush_secs = flush_secs
        self._flushed_at = 0.0
        self._lock = threading.Lock()
        self._closed = False
        self.add_event(Event(wall_time=time.time(), file_version=_FILE_VERSION))

    def get_logdir(self) -> str:
        """The directory."""
        return self._directory

    def add_event(self, event: Any) -> None:
        """Adds an event; nothing after `close`.

        Raises:
          OSError: if it cannot be written, naming the file.
        """
        data = event.SerializeToString()
        length = len(data).to_bytes(8, "little")
        record = length + _checksum(length) + data + _checksum(data)
        with self._lock:
            if self._closed:
                return
            self._do(lambda: self._file.write(record))
            if time.monotonic() - self._flushed_at > self._flush_secs:
                self._flush()

    def flush(self) -> None:
        """Gives every event to the operating system, where the end of this process cannot harm it.

        Raises:
          OSError: if one cannot be written, naming the file.
        """
        with self._lock:
            if not self._closed:
                self._flush()

    def close(self) -> None:
        """Flushes, and closes the file."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._do(self._file.close)

    def reopen(self) -> None:
        """Does nothing: a closed file stays closed."""

    def _flush(self) -> None:
        self._do(self._file.flush)
        self._flushed_at = time.monotonic()

    def _do(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self._path) from error


class EventFileWriter(tensorboardX.SummaryWriter):
    """Summaries in an `EventFile`."""

    def __init__(
        self, directory: str | os.PathLike[str], *, flush_secs: float, write_to_disk: bool = True
    ) -> None:
        """Opens the file; without `write_to_disk` nothing is written."""
        self._seconds = flush_secs
        super().__init__(os.fspath(directory), write_to_disk=write_to_disk)

    def _get_file_writer(self) -> Any:
        if not self._write_to_disk:
            return super()._get_file_writer()
        if self.file_writer is None:
            self.file_writer = _FileWriter(EventFile(str(self.logdir), flush_secs=self._seconds))
            self.all_writers = {self.file_writer.get_logdir(): self.file_writer}
        return self.file_writer


class _FileWriter(tensorboardX.FileWriter):
    """Makes events of summaries."""

    def __init__(self, events: EventFile) -> None:
        self.event_writer = events
        self._default_metadata: dict[str, Any] = {}


def _checksum(data: bytes) -> bytes:
    return masked_crc32c(data).to_bytes(4, "little")


def _free_path(directory: str) -> str:
    """A path that no file has: a run that starts twice in a second must not write over itself."""
    name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    number = 0
    while os.path.exists(path := os.path.join(directory, f"{name}.{number}")):
        number += 1
    return path

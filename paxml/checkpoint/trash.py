"""Deletes checkpoints in two steps, so that none under its own name is ever half gone."""

import concurrent.futures
import contextlib
import os
import shutil

from etils import epath

TRASH_DIRECTORY = ".deleted"


class Trash:
    """A directory that checkpoints are moved into, and that is emptied in the background.

    A process that is killed while it deletes leaves a part of a checkpoint behind. Here that part
    is in the trash, which the next run empties.
    """

    def __init__(self, checkpoints: epath.Path) -> None:
        """Deletes what an earlier process left in the trash of a directory of checkpoints."""
        self._directory = checkpoints / TRASH_DIRECTORY
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "delete_checkpoints")
        self.remove()

    def empty(self) -> None:
        """Begins to delete what is there now."""
        if self._directory.exists():
            self._thread.submit(self._empty)

    def remove(self) -> None:
        """Deletes everything and the trash itself; nothing may be moved into it meanwhile."""
        self._empty()
        with contextlib.suppress(OSError):  # not there, or something could not be deleted
            os.rmdir(self._directory)

    def close(self) -> None:
        """Waits for deletions, then removes the trash."""
        self._thread.shutdown()
        self.remove()

    def _empty(self) -> None:
        if self._directory.exists():
            for path in self._directory.iterdir():
                shutil.rmtree(path, ignore_errors=True)

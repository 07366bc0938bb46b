"""State that is bound to a thread or to a `with` block."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from absl import logging


class ThreadLocalStack(threading.local):
    """A list per thread.

    Attributes:
      stack: The list of the thread that reads it; empty in a new thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[Any] = []


@contextlib.contextmanager
def logging_verbosity_level(level: int) -> Iterator[None]:
    """Sets the verbosity of absl logging inside, and restores it on leaving in any way."""
    previous = logging.get_verbosity()
    logging.set_verbosity(level)
    try:
        yield
    finally:
        logging.set_verbosity(previous)

"""Training batches, fetched and sent to the devices ahead of their use."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import logging

from praxis.input.base import BaseInput, end_of_data

Place = Callable[[Any], Any]

# How long `close` waits for a batch that is being fetched, in seconds.
CLOSE_SECS = 5.0


class _Item(NamedTuple):
    """A batch on the devices, and the input's state once it is consumed."""

    batch: Any
    state: bytes | None


class _End(NamedTuple):
    """The input is exhausted, or failed with an error."""

    error: BaseException | None


class TrainBatches:
    """An iterator over the batches of an input, with a thread that works ahead.

    `state` is the position of the input after the batches that were *consumed*, not after those
    fetched ahead: each batch travels with the state that belongs to it. Looking at the next batch
    consumes nothing.

    An input that writes its position itself, by its own `save`, is read without working ahead.

    Attributes:
      state: The position, None if the input cannot tell.
      error: What the input raised in place of the batch that was asked for last, if it did.
      saves_itself: Whether the input writes its position itself.
    """

    def __init__(self, train_input: BaseInput, place: Place, *, depth: int = 2) -> None:
        """Starts fetching.

        Args:
          train_input: The input, at its position. Nobody else may use it from now on.
          place: From a padded batch of NumPy arrays to arrays on the devices.
          depth: Number of batches to fetch ahead, at least 1.
        """
        self._input = train_input
        self._place = place
        self.saves_itself = saves_itself(train_input)
        self.state = None if self.saves_itself else get_state_or_none(train_input)
        self._has_state = self.state is not None
        self.error: BaseException | None = None
        self._next: _Item | _End | None = None
        self._closed = threading.Event()
        self._queue: queue.Queue[_Item | _End] = queue.Queue(maxsize=depth)
        self._thread: threading.Thread | None = None
        if not self.saves_itself:
            self._thread = threading.Thread(target=self._work, name="train_batches", daemon=True)
            self._thread.start()

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> Any:
        item = self._look()
        if isinstance(item, _End):
            self.error = item.error
            raise item.error or StopIteration
        self._next = None
        if self._has_state:
            self.state = item.state
        return item.batch

    def peek(self) -> Any | None:
        """The next batch without consuming it, None at the end of the data.

        Also None for an input that saves itself: its position would already be past the batch.
        """
        if self.saves_itself:
            return None
        item = self._look()
        return None if isinstance(item, _End) else item.batch

    def close(self) -> None:
        """Stops the thread; batches fetched ahead are dropped.

        Nothing can interrupt an input that waits for its data: after `CLOSE_SECS` the thread is
        left behind, with a warning. It ends when its batch comes, or with the process.
        """
        self._closed.set()
        if self._thread is None:
            return
        deadline = time.monotonic() + CLOSE_SECS
        while self._thread.is_alive():
            _drain(self._queue)
            self._thread.join(timeout=0.1)
            if time.monotonic() > deadline:
                logging.warning(
                    "Training input %s has been fetching a batch for %g s and is left behind.",
                    *(self._input.name, CLOSE_SECS),
                )
                break
        _drain(self._queue)

    def _look(self) -> _Item | _End:
        if self._next is None:
            self._next = self._fetch() if self._thread is None else self._queue.get()
        return self._next

    def _work(self) -> None:
        while not self._closed.is_set():
            item = self._fetch()
            self._queue.put(item)
            if isinstance(item, _End):
                return

    def _fetch(self) -> _Item | _End:
        try:
            batch = self._input.get_next_padded()
            state = self._input.get_state() if self._has_state else None
            return _Item(self._place(batch), state)
        # Raised again where the batch is used. Whatever it is: a thread that ends without a word
        # would leave the trainer waiting for ever.
        except BaseException as error:
            return _End(None if end_of_data(error) else error)


def get_state_or_none(train_input: BaseInput) -> bytes | None:
    """The position of an input, None if it cannot tell."""
    try:
        return train_input.get_state()
    except NotImplementedError:
        logging.debug("Input %s has no state.", train_input.name)
        return None


def saves_itself(train_input: BaseInput) -> bool:
    """Whether an input writes its position by a `save` of its own."""
    return type(train_input).save is not BaseInput.save


def _drain(items: queue.Queue[Any]) -> None:
    while True:
        try:
            items.get_nowait()
        except queue.Empty:
            return

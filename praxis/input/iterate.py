"""Inputs over iterables: Python generators and Grain datasets."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from praxis.input import batch as batch_lib
from praxis.input import state as state_lib
from praxis.input.base import BaseInput


class IterableInput(BaseInput):
    """Batches of any Python iterable, which must give the same ones each time it is started.

    The state is the number of batches read; it is restored by reading as many again.

    Attributes:
      make_iterator: Starts the data: called with this input, it returns an iterable of batches.
        A function in a module keeps the config serializable.
      num_epochs: Passes over the data; None for no end.

    Raises:
      ValueError: when built without `make_iterator`; from `get_next`, if the data is empty.
    """

    make_iterator: Callable[..., Iterable[Any]] | None = None
    num_epochs: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.make_iterator is None:
            raise ValueError(
                f"{self._text}: make_iterator is not set. Set it to a function that takes the "
                "input and returns an iterable of batches."
            )
        self._num_read = 0

    def _batches(self) -> Iterator[Any]:
        assert self.make_iterator is not None
        epoch = 0
        while self.num_epochs is None or epoch < self.num_epochs:
            count = 0
            for batch in self.make_iterator(self):
                count += 1
                yield batch
            if not count:
                raise ValueError(f"{self._text}: make_iterator gave no batches.")
            epoch += 1

    def get_next(self) -> Any:
        if self._iterator is None:
            self._iterator = self._batches()
        batch = batch_lib.to_batch(next(self._iterator))
        self._num_read += 1
        return batch

    def reset(self) -> None:
        super().reset()
        self._num_read = 0

    def _get_state_internal(self) -> bytes:
        return state_lib.encode(num_read=self._num_read)

    def _set_state_internal(self, state: bytes) -> None:
        (num_read,) = state_lib.decode(state, "num_read")
        self.reset()
        for _ in range(num_read):
            self.get_next()


class GrainInput(BaseInput):
    """Batches of a Grain dataset, which a subclass makes.

    The state is that of Grain's iterator. Grain calls functions in the order of its index, so the
    same state gives the same batches whatever the number of threads.

    Attributes:
      num_threads: Threads that read ahead from a MapDataset; 0 reads in the calling thread.

    Example:
      >>> import grain
      >>> class Squares(GrainInput):
      ...     def make_dataset(self):
      ...         squares = grain.MapDataset.range(6).map(lambda i: {"x": i * i})
      ...         return squares.batch(self.batch_size)
      >>> Squares.config(batch_size=3).Instantiate().get_next().x
      array([0, 1, 4])
    """

    num_threads: int = 0

    def make_dataset(self) -> Any:
        """A `grain.MapDataset` or `grain.IterDataset` of batches of this process's shard.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement make_dataset.")

    def _grain_iterator(self) -> Any:
        # Imported here: importing Grain takes longer than the rest of this library.
        import grain

        if self._iterator is None:
            if self.dataset is None:
                dataset = self.make_dataset()
                if isinstance(dataset, grain.MapDataset):
                    ahead = 2 * self.num_threads
                    options = grain.ReadOptions(
                        num_threads=self.num_threads, prefetch_buffer_size=ahead
                    )
                    dataset = dataset.to_iter_dataset(options)
                self.dataset = dataset
            self._iterator = iter(self.dataset)
        return self._iterator

    def get_next(self) -> Any:
        return batch_lib.to_batch(next(self._grain_iterator()))

    def _identity(self) -> dict[str, Any]:
        """What must not change between saving and restoring the state, besides the class."""
        return {}

    def _get_state_internal(self) -> bytes:
        return state_lib.encode(
            iterator=self._grain_iterator().get_state(), identity=self._identity()
        )

    def _set_state_internal(self, state: bytes) -> None:
        iterator_state, identity = state_lib.decode(state, "iterator", "identity")
        if identity != self._identity():
            raise ValueError(
                f"{self._text}: the state was saved with {identity}, but now the input has "
                f"{self._identity()}."
            )
        self._iterator = None
        self._grain_iterator().set_state(iterator_state)

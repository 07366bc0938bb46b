"""Input for evaluation: each example counts exactly once over all processes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from praxis import pax_fiddle
from praxis.input import batch as batch_lib
from praxis.input import children
from praxis.input import state as state_lib
from praxis.input.base import BaseInput, end_of_data
from praxis.input.numpy_source import as_source, count_examples, gather

WEIGHTS_KEY = "eval_sample_weights"


class EvalAdaptor(BaseInput):
    """Batches of finite data, the last ones filled with copies that have weight 0.

    Row i of the batches of all processes, joined in the order of the processes, is example i. So
    every process sees the same number of batches, and the sum of all weights is the number of
    examples. Each batch has a field `eval_sample_weights` [B]: 1, or what the data has there, for
    an example and 0 for a copy.

    Attributes:
      data: Nested dict of arrays, or source of examples, as of NumpyInput.
      input: Config of an input whose batches, read once to the end in each process, are the data.
        Either this or `data`.
      reset_for_eval: True, since the data ends.
      eval_loop_num_batches: All, by default.

    Raises:
      ValueError: when built with both or neither of `data` and `input`, or with empty data.
    """

    data: Any = None
    input: pax_fiddle.Config | None = None
    reset_for_eval: bool = True
    eval_loop_num_batches: int | None = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data is None) == (self.input is None):
            given = "neither" if self.data is None else "both"
            raise ValueError(f"{self._text} takes exactly one of data and input, got {given}.")
        self._source = as_source(self.data)
        if self.input is not None:
            self._source = _read_all(children.config_of_child(self, self.input, "data"))
        self._num_samples = count_examples(self._source, self._text)
        self._position = 0

    @property
    def num_samples(self) -> int:
        """Examples of all processes, without the copies."""
        return self._num_samples

    @property
    def num_batches(self) -> int:
        """Batches of each process in one pass."""
        return -(-self._num_samples // self._global_batch)

    @property
    def _global_batch(self) -> int:
        return self._batch_rows * self.num_infeed_hosts

    def get_next(self) -> Any:
        if self._position >= self.num_batches:
            raise StopIteration
        rows = self._batch_rows
        start = self._position * self._global_batch + self.infeed_host_index * rows
        indices = np.arange(start, start + rows)
        weights = (indices < self._num_samples).astype(np.float32)
        batch = self._read(np.minimum(indices, self._num_samples - 1))
        if WEIGHTS_KEY in batch:
            weights = weights * batch[WEIGHTS_KEY]
        batch[WEIGHTS_KEY] = weights
        self._position += 1
        return batch

    def _read(self, indices: np.ndarray) -> Any:
        if isinstance(self._source, Mapping):
            return gather(self._source, indices)
        examples = [batch_lib.to_batch(self._source[int(i)]) for i in indices]
        if not isinstance(examples[0], Mapping):
            raise TypeError(
                f"{self._text}: an example of the source is a {type(examples[0]).__name__}, "
                'expected a dict of arrays, e.g. {"x": array}.'
            )
        return jax.tree.map(lambda *rows: np.stack(rows), *examples)

    def reset(self) -> None:
        super().reset()
        self._position = 0

    def _get_state_internal(self) -> bytes:
        return state_lib.encode(position=self._position, num_samples=self._num_samples)

    def _set_state_internal(self, state: bytes) -> None:
        position, num_samples = state_lib.decode(state, "position", "num_samples")
        if num_samples != self._num_samples:
            raise ValueError(
                f"{self._text}: the state was saved with {num_samples} examples, but now there are "
                f"{self._num_samples}."
            )
        self._position = position


def _read_all(config: pax_fiddle.Config) -> Any:
    """All batches of an input, joined: each process reads the whole data, not its shard."""
    inner = config.clone().set(num_infeed_hosts=1, infeed_host_index=0).Instantiate()
    batches = []
    while True:
        try:
            batches.append(inner.get_next())
        except Exception as error:
            if not end_of_data(error):
                raise
            break
    if not batches:
        raise ValueError(f"{type(inner).__name__} {inner.name!r} gave no batches.")
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)

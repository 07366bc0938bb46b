"""Input over NumPy arrays, or over anything with a length and an index."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from praxis.input import batch as batch_lib
from praxis.input.iterate import GrainInput
from praxis.utils.trees import path_text


class NumpyInput(GrainInput):
    """Batches of examples that can be read in any order, shuffled anew in each pass.

    All processes shuffle alike, then each takes every `num_infeed_hosts`-th example; examples that
    do not divide over the processes are left out of that pass. The order is a function of the
    seed and the position, so the state is just the position.

    Attributes:
      data: Nested dict of arrays [num_examples, ...]; or a source of examples, with `len` and
        integer indexing, whose examples are nested dicts of arrays. Required, unless a subclass
        overrides `load`.
      shuffle: Whether to shuffle; by `input_random_seed`, in which None counts as 0 so that all
        processes agree.
      num_epochs: Passes over the data. None for no end, or for one pass with `reset_for_eval`.
      drop_remainder: Leave out a last batch that is not full. Without it the number of rows of
        that batch differs, which compiles again; use EvalAdaptor to count each example once.

    Raises:
      ValueError: when the first batch is read: if there is no data, if arrays disagree on the
        number of examples, or if there are too few examples for one batch.

    Example:
      >>> import numpy as np
      >>> config = NumpyInput.config(batch_size=2, data={"x": np.arange(5)}, num_epochs=1)
      >>> reader = config.Instantiate()
      >>> reader.get_next().x
      array([0, 1])
    """

    data: Any = None
    shuffle: bool = False
    num_epochs: int | None = None
    drop_remainder: bool = True

    def load(self) -> Any:
        """The data; called once, when the first batch is read."""
        return self.data

    def make_dataset(self) -> Any:
        import grain

        data = as_source(self.load())
        self._num_examples = count = count_examples(data, self._text)
        hosts = self.num_infeed_hosts
        per_host = count // hosts
        rows = self._batch_rows
        num_epochs = 1 if self.num_epochs is None and self.reset_for_eval else self.num_epochs
        total = per_host * (num_epochs or 1)
        if per_host == 0 or (self.drop_remainder and num_epochs is not None and total < rows):
            raise ValueError(
                f"{self._text}: {count} examples over {hosts} processes are too few for one batch "
                f"of {rows} rows per process."
            )
        in_arrays = isinstance(data, Mapping)
        # Rows of arrays are gathered a batch at a time, which is much faster than one by one.
        examples = grain.MapDataset.range(count) if in_arrays else grain.MapDataset.source(data)
        examples = examples.seed(self.input_random_seed or 0)
        if self.shuffle:
            examples = examples.shuffle()
        shard = slice(self.infeed_host_index, per_host * hosts, hosts)
        examples = examples.slice(shard).repeat(num_epochs)
        batches = examples.batch(rows, drop_remainder=self.drop_remainder)
        return batches.map(lambda indices: gather(data, indices)) if in_arrays else batches

    @property
    def num_samples(self) -> int:
        """Examples of all processes in one pass."""
        self._grain_iterator()
        return self._num_examples

    def _identity(self) -> dict[str, Any]:
        return {
            "num_examples": self.num_samples,
            "batch_size": self.batch_size,
            "input_random_seed": self.input_random_seed,
            "shuffle": self.shuffle,
            "infeed_host_index": self.infeed_host_index,
            "num_infeed_hosts": self.num_infeed_hosts,
        }


def as_source(data: Any) -> Any:
    """Nested dicts of things like arrays as a NestedMap of arrays; other data as it is."""
    return batch_lib.to_batch(data) if isinstance(data, Mapping) else data


def gather(arrays: Any, indices: np.ndarray) -> Any:
    """Rows of each array of a tree."""
    return jax.tree.map(lambda array: array[indices], arrays)


def count_examples(data: Any, owner: str) -> int:
    """Examples in a nested dict of arrays, or in a source.

    Args:
      data: As of NumpyInput.
      owner: Class and name of the input, for messages.

    Raises:
      ValueError: if there are none, or if the arrays disagree on their number.
      TypeError: if the data is neither.
    """
    if data is None:
        raise ValueError(
            f"{owner}: there is no data. Set config.data to a dict of arrays or a source, or "
            "override load."
        )
    if isinstance(data, Mapping):
        named, _ = jax.tree_util.tree_flatten_with_path(data)
        sizes = {path_text(path): len(array) for path, array in named}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"{owner}: the arrays disagree on the number of examples: {sizes}.")
        count = next(iter(sizes.values()), 0)
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        if isinstance(data, np.ndarray):
            raise TypeError(
                f"{owner}: data is an array of shape {data.shape}, expected a dict of arrays. "
                'Name it, e.g. {"x": array}.'
            )
        count = len(data)
    else:
        raise TypeError(
            f"{owner}: data is a {type(data).__name__}, expected a dict of arrays, or a source "
            "with len and integer indexing."
        )
    if not count:
        raise ValueError(f"{owner}: the data has no examples.")
    return count

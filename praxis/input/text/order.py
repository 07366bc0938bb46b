"""One order of all examples of all sources, the same in every process."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def global_order(
    sources: Sequence[Any],
    *,
    weights: Sequence[float] | None,
    shuffle: bool,
    seed: int,
    num_epochs: int | None,
) -> Any:
    """Examples of all sources in one order, as a function of their number.

    Args:
      sources: With length and integer indexing, none of them empty.
      weights: How often each source is drawn from, up to a factor. The order ends with the source
        that ends first. None for each example once in a pass.
      shuffle: Whether each pass over a source (over all, without weights) is another permutation.
      seed: Of the permutations.
      num_epochs: Passes over each source; None for no end.

    Returns:
      A `grain.MapDataset`.
    """
    import grain

    def passes(dataset: Any, index: int) -> Any:
        if shuffle:
            dataset = dataset.shuffle(seed=_seed_of(seed, index))
        return dataset.repeat(num_epochs)

    datasets = [grain.MapDataset.source(source) for source in sources]
    if weights is None:
        whole = datasets[0] if len(datasets) == 1 else grain.MapDataset.concatenate(datasets)
        return passes(whole, 0)
    mixed = [passes(dataset, i) for i, dataset in enumerate(datasets)]
    return grain.MapDataset.mix(mixed, weights=list(weights))


def _seed_of(seed: int, index: int) -> int:
    """A seed for each source: sources of one length would else be permuted alike."""
    return int(np.random.SeedSequence([seed % 2**32, index]).generate_state(1)[0])


def row_iterator(order: Any, row: int, num_rows: int, *, pack_to: int | None) -> Any:
    """What fills one row of the global batch, step after step.

    Row r gets the examples r, r + G, r + 2 G, ... of the order, wherever it is computed.

    Args:
      order: From `global_order`, of sequences.
      row: r, from 0.
      num_rows: G, rows of the global batch.
      pack_to: Positions of a row, to fill each with as many sequences as it takes; None for one
        sequence a row, unfilled.

    Returns:
      A `grain.DatasetIterator` of dicts of arrays.
    """
    import grain
    from grain import experimental

    sequences = order[row::num_rows]
    if pack_to is not None:
        # A text of one token without special ones has nothing to predict.
        sequences = sequences.filter(lambda sequence: len(sequence["ids"]) > 0)
    # The trainer reads whole batches ahead.
    in_turn = sequences.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if pack_to is None:
        return iter(in_turn)
    lengths = {"ids": pack_to, "labels": pack_to}
    return iter(experimental.ConcatThenSplitIterDataset(in_turn, length_struct=lengths))

"""The batches of one evaluation or decoding, on the devices."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from paxml.partitioning.base import Partitioner
from paxml.program.batches import split_numeric
from praxis import base_input
from praxis.input.base import end_of_data

PartitionSpecs = Callable[[Any], Any]


def eval_batches(
    source: base_input.BaseInput,
    partitioner: Partitioner,
    partition_specs: PartitionSpecs,
    *,
    what: str,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Batches of one run on the devices, each with its texts, which stay on the host.

    With `reset_for_eval`, or no number of batches, these are all up to the end of the data. Only
    with `reset_for_eval` does the next run start over.

    Args:
      source: The input.
      partitioner: Places the batches.
      partition_specs: From a batch of this process to its shardings.
      what: Kind of the input, for messages.

    Raises:
      ValueError: if the data ends before `eval_loop_num_batches`.
    """
    count = source.eval_loop_num_batches
    if source.reset_for_eval or count is None or count <= 0:
        count = math.inf
    done = 0
    while done < count:
        try:
            batch = source.get_next_padded()
        except Exception as error:
            if not end_of_data(error):
                raise
            if count < math.inf:
                raise ValueError(
                    f"{what} input {source.name!r} ended after {done} batches, but "
                    f"eval_loop_num_batches is {count}. Lower it, or set reset_for_eval = True "
                    "to go through all the data each time."
                ) from error
            break
        done += 1
        numeric, texts = split_numeric(batch)
        yield partitioner.preprocess_inputs(source, numeric, partition_specs(numeric)), texts
    if source.reset_for_eval:
        source.reset()

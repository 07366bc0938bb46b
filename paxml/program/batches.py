"""What programs need to know about a batch and its results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from praxis import base_input

TOKEN_KEYS = ("ids", "labels")


def global_batch_size(instance: base_input.BaseInput) -> int:
    """Examples in a batch of all processes, padding not counted."""
    return instance.get_global_batch_size(instance.hparams.clone())


def numeric_only(batch: Any) -> Any:
    """A batch without texts and objects, which cannot go to a device."""
    return split_numeric(batch)[0]


def split_numeric(batch: Any) -> tuple[Any, dict[str, Any]]:
    """A batch without its texts and objects, and those entries at its top level."""
    if not isinstance(batch, Mapping):
        return batch, {}
    other = {key: value for key, value in batch.items() if _is_text(value)}
    if not other:
        return batch, {}
    make: Any = type(batch)
    return make({key: batch[key] for key in batch if key not in other}), other


def tokens_of(batch: Any) -> int:
    """Tokens in a batch, padding included; 0 if it holds none."""
    if isinstance(batch, Mapping):
        for key in TOKEN_KEYS:
            shape = getattr(batch.get(key), "shape", ())
            if len(shape) == 2:
                return math.prod(shape)
    return 0


def with_texts(per_example_out: Any, texts: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of a batch on the host, and the texts that bypassed the devices."""
    return {**jax.device_get(dict(per_example_out)), **texts}


def reduce_scalars(task: Any, scalars: Sequence[Any]) -> dict[str, Any]:
    """Metrics over the batches of one run, as the task reduces them: (value, weight) by name."""
    aggregator = task.metrics_aggregator
    for batch in jax.device_get(scalars):
        aggregator.store(batch)
    return dict(aggregator.finalize())


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"

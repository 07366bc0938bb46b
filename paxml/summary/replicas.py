"""Summaries that each replica of a step made for itself."""

from collections.abc import Mapping
from typing import Any

import jax

from praxis.base_layer import PMAP_PARALLEL_AXIS_NAME
from praxis.core.summaries import SummaryType, get_summary_base_type, get_summary_type_from_key


def aggregate_per_replica_summaries(summary_tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Combines the summaries of the replicas of an axis called `batch`.

    The trainer needs none of this: its steps see the global batch. It is for steps of your own
    under `jax.vmap`, `jax.pmap` or `jax.shard_map` over such an axis.

    Args:
      summary_tensors: By flat key, each ending in its type.

    Returns:
      Means of scalars; everything else of all replicas one after the other along the first axis.
    """

    def combine(key: str, value: Any) -> Any:
        if get_summary_base_type(get_summary_type_from_key(key)) == SummaryType.SCALAR:
            return jax.lax.pmean(value, PMAP_PARALLEL_AXIS_NAME)
        return jax.tree.map(
            lambda leaf: jax.lax.all_gather(leaf, PMAP_PARALLEL_AXIS_NAME, tiled=True), value
        )

    return {key: combine(key, value) for key, value in summary_tensors.items()}

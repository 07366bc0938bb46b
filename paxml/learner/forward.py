"""Results of a forward pass, and how those of several parts of a batch become one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class ForwardResult(NamedTuple):
    """What a loss function returns beside the loss."""

    mean_loss: jax.Array
    weighted_scalars: Any
    clu_metrics: dict[str, Any]
    per_example_out: Any
    updated_vars: Any
    summaries: dict[str, Any]


def split_rows(tree: Any, num_parts: int, what: str) -> Any:
    """Makes [parts, B / parts, ...] of each [B, ...]; part i has the rows i, i + parts, ...

    So every part keeps the sharding of the batch. Numbers without an axis go to every part.

    Raises:
      ValueError: if B is not a multiple of the number of parts; `what` names the setting.
    """

    def split(x: jax.Array) -> jax.Array:
        if not x.ndim:
            return jnp.broadcast_to(x, (num_parts,))
        if x.shape[0] % num_parts:
            raise ValueError(
                f"{what}: an array of the batch has {x.shape[0]} rows, shape {x.shape}; they "
                f"cannot be split into {num_parts} equal parts. Choose a divisor of the batch size."
            )
        return x.reshape(x.shape[0] // num_parts, num_parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, tree)


def join_rows(tree: Any) -> Any:
    """The inverse of `split_rows`: [parts, B / parts, ...] -> [B, ...]."""
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]) if x.ndim > 1 else x, tree
    )


def combine(stacked: Any, weights: jax.Array, join: Callable[[Any], Any] = join_rows) -> Any:
    """The result of a batch from those of its parts.

    Losses and metrics are weighted means, metric objects are merged, outputs of examples are
    joined, and everything else is the mean over the parts (of whole numbers the first).

    Args:
      stacked: a `ForwardResult`, or anything else, with a leading axis for the parts.
      weights: of the loss of each part, [parts].
      join: puts the outputs of the examples of all parts into the order of the batch.
    """
    if not isinstance(stacked, ForwardResult):
        return jax.tree.map(_mean, stacked)
    return ForwardResult(
        mean_loss=weighted_mean(stacked.mean_loss, weights),
        weighted_scalars=_merge_scalars(stacked.weighted_scalars),
        clu_metrics={name: _merge(metric) for name, metric in stacked.clu_metrics.items()},
        per_example_out=join(stacked.per_example_out),
        updated_vars=jax.tree.map(_mean, stacked.updated_vars),
        summaries=jax.tree.map(_mean, stacked.summaries),
    )


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(weights * values) / sum(weights) over the first axis; parts of weight 0 do not count."""
    column = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
    total = jnp.sum(column, axis=0)
    kept = jnp.where(column != 0, column * values, jnp.zeros_like(values))
    return jnp.sum(kept, axis=0) / jnp.where(total == 0, jnp.ones_like(total), total)


def _merge_scalars(scalars: Any) -> Any:
    def merge(value: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        return weighted_mean(value, weight), jnp.sum(weight, axis=0)

    make: Callable[..., Any] = type(scalars)
    return make({name: merge(*pair) for name, pair in scalars.items()})


def _merge(stacked: Any) -> Any:
    """Merges a metric object with a leading axis for the parts."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    merged, *others = (jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(count))
    for other in others:
        merged = merged.merge(other)
    return merged


def _mean(x: jax.Array) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x[0]
    return jnp.mean(x.astype(jnp.promote_types(x.dtype, jnp.float32)), axis=0).astype(x.dtype)

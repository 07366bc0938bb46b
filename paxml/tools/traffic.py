"""What devices have to send each other in a step, estimated from how weights are split."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from praxis.core.weights import WeightHParams


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that one device sends in a step, by ring algorithms.

    Attributes:
      gather_weights: Weights split over axes of the batch (fully sharded data parallelism) are put
        together in the forward and again in the backward pass, in the dtype of activations.
      reduce_gradients: Gradients summed over the axes of the batch, in the dtype of weights.
      reduce_activations: Activations of model width summed over axes that split weights but not
        the batch (tensor parallelism), once for each such weight, forward or backward: Shoeybi et
        al., "Megatron-LM", 2019, arXiv:1909.08053. What several weights share is summed once for
        each, so this is an upper estimate.
    """

    gather_weights: float
    reduce_gradients: float
    reduce_activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.gather_weights + self.reduce_gradients + self.reduce_activations


def estimate_traffic(
    params: Sequence[tuple[WeightHParams, Any]],
    mesh: Mapping[str, int],
    batch_axes: Sequence[str],
    *,
    num_tokens: int,
    fprop_bytes: int,
) -> Traffic:
    """Estimates what a step has to send, whatever the compiler makes of it.

    Experts that tokens are sent to count as weights that are gathered, and the axis of the stages
    of a pipeline not at all: what a program really sends shows when it is compiled.

    Args:
      params: Description and `PartitionSpec` of each trainable variable.
      mesh: Size of each axis by name.
      batch_axes: Axes that split the batch.
      num_tokens: Tokens, or examples, of a global batch.
      fprop_bytes: Bytes of an element of activations.
    """
    gathered = reduced = activations = 0.0
    rows = num_tokens / math.prod(mesh[axis] for axis in batch_axes)
    for hparams, spec in params:
        prefix = len(hparams.repeat_prefix or ())
        per_dim = list(_axes_by_dim(spec, len(hparams.full_shape)))
        axes = [axis for dim in per_dim for axis in dim]
        size = math.prod(hparams.full_shape)
        own_batch = _size(mesh, [axis for axis in axes if axis in batch_axes])
        other = _size(mesh, [axis for axis in axes if axis not in batch_axes])
        all_batch = _size(mesh, batch_axes)
        whole = size / other  # After gathering over the axes of the batch.
        item = _itemsize(hparams)
        gathered += 2 * whole * min(fprop_bytes, item) * (own_batch - 1) / own_batch
        # A reduce-scatter over the axes that split the weight, an all-reduce over the others.
        reduced += whole * item * (own_batch - 1) / own_batch
        copies = all_batch / own_batch
        reduced += 2 * whole / own_batch * item * (copies - 1) / copies
        tensor = [axis for dim in per_dim[prefix:] for axis in dim if axis not in batch_axes]
        if len(hparams.shape) > 1 and (shards := _size(mesh, tensor)) > 1:
            widths = [
                width
                for width, dim in zip(hparams.shape, per_dim[prefix:], strict=True)
                if not set(dim) & set(tensor)
            ]
            stages = _size(mesh, [axis for dim in per_dim[:prefix] for axis in dim])
            layers = math.prod(hparams.repeat_prefix or ()) / stages
            one = rows * max(widths, default=1) * fprop_bytes
            activations += layers * 2 * one * (shards - 1) / shards
    return Traffic(gathered, reduced, activations)


def _axes_by_dim(spec: Any, rank: int) -> Iterator[tuple[str, ...]]:
    for entry in (*spec, *[None] * (rank - len(spec))):
        yield () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _size(mesh: Mapping[str, int], axes: Sequence[str]) -> int:
    return math.prod(mesh[axis] for axis in axes)


def _itemsize(hparams: WeightHParams) -> int:
    return jnp.dtype(hparams.dtype).itemsize

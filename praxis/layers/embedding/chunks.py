"""Losses over large vocabularies, whose logits exist for a chunk of positions at a time."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer

# What a chunk may read; it writes nothing, so that the chunks do not depend on each other.
_COLLECTIONS = (base_layer.PARAMS, base_layer.NON_TRAINABLE)


def check_chunk_size(layer: base_layer.BaseLayer) -> None:
    """Refuses a field `chunk_size` of less than one position.

    Raises:
      ValueError: naming the layer and the size.
    """
    if layer.chunk_size is not None and layer.chunk_size < 1:
        raise ValueError(
            f"{layer.path_text}: chunk_size is {layer.chunk_size}, expected at least 1 position, "
            "or None for no chunks."
        )


def fits_chunks(inputs: Float[Array, "..."], chunk_size: int | None) -> bool:
    """Whether inputs are [B, T, D] with at least one chunk of positions."""
    return chunk_size is not None and inputs.ndim == 3 and inputs.shape[1] >= chunk_size


def by_chunks(
    layer: base_layer.BaseLayer,
    function: Callable[..., Any],
    arrays: tuple[Shaped[Array, "B T ..."] | None, ...],
    chunk_size: int,
) -> Any:
    """Applies a function of a layer to one chunk of positions after the other.

    What the function computes on the way, such as logits, exists for one chunk alone: the backward
    pass computes it again, and adds up the gradients of the weights chunk by chunk.

    Args:
      layer: Its weights are read; nothing is written.
      function: `function(layer, *chunks)` with results of shape [B, W, ...].
      arrays: [B, T, ...], or None, which the function gets as it is.
      chunk_size: W. T need not be a multiple of it: the last chunk is filled up with zeros.

    Returns:
      The results, [B, T, ...].
    """
    target_len = next(x.shape[1] for x in arrays if x is not None)
    if layer.is_initializing():
        # A scan cannot create the variables that it shares between its steps.
        function(layer, *jax.tree.map(lambda x: x[:, :1], arrays))

    def split(x: Array) -> Array:
        padding = [(0, 0)] * x.ndim
        padding[1] = (0, -target_len % chunk_size)
        return jnp.pad(x, padding).reshape(x.shape[0], -1, chunk_size, *x.shape[2:])

    def join(x: Array) -> Array:
        return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :target_len]

    def step(layer: base_layer.BaseLayer, carry: tuple[()], chunks: Any) -> Any:
        return carry, function(layer, *chunks)

    scan = nn.scan(
        nn.remat(step, prevent_cse=False),
        variable_broadcast=_COLLECTIONS,
        split_rngs={base_layer.PARAMS: False, base_layer.RANDOM: True},
        in_axes=1,
        out_axes=1,
    )
    _, results = scan(layer, (), jax.tree.map(split, arrays))  # [B, T / W, W, ...]
    return jax.tree.map(join, results)

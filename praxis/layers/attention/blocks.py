"""Cuts sequences into blocks with context, for attention that is local."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Shaped

from praxis.layers.attention.mask_spec import AttentionMask

Padding = int | float | bool


def shift_1d(inputs: Shaped[Array, "..."], offset: int, axis: int) -> Shaped[Array, "..."]:
    """Shifts along an axis and fills with zeros.

    Args:
      inputs: [...].
      offset: Places to the right if positive, to the left if negative.
      axis: The axis.
    """
    size = inputs.shape[axis]
    step = min(abs(offset), size)
    padding = [(0, 0)] * inputs.ndim
    padding[axis] = (step, 0) if offset > 0 else (0, step)
    kept = (0, size - step) if offset > 0 else (step, size)
    return jnp.pad(lax.slice_in_dim(inputs, *kept, axis=axis), padding)


def convert_to_block(
    x: Shaped[Array, "B T *D"], block_size: int, padding_val: Padding = 0.0
) -> Shaped[Array, "B _ _ *D"]:
    """Cuts time into blocks.

    Args:
      x: [B, T, ...].
      block_size: W, at least 1.
      padding_val: Fills the last block.

    Returns:
      [B, U, W, ...] with U = ceil(T / W).

    Raises:
      ValueError: if `block_size` is below 1.
    """
    if block_size < 1:
        raise ValueError(f"convert_to_block: block_size is {block_size}, expected at least 1.")
    batch, time, *features = x.shape
    num_blocks = -(-time // block_size)
    x = _pad_time(x, 0, num_blocks * block_size - time, padding_val)
    return x.reshape(batch, num_blocks, block_size, *features)


def extract_block_context(
    x: Shaped[Array, "B T *D"],
    block_size: int,
    left_context: int,
    right_context: int,
    padding_val: Padding = 0.0,
) -> Shaped[Array, "B _ _ *D"]:
    """Gives each block of queries the keys that it may see.

    Args:
      x: [B, T, ...].
      block_size: W, at least 1.
      left_context: Keys up to the query, itself included; 1 to W + 1.
      right_context: Keys after the query; 0 to W.
      padding_val: Fills places before the start and after the end.

    Returns:
      [B, U, C, ...] with C = W + left_context - 1 + right_context. Block i holds
      x[i W - left_context + 1 : (i + 1) W + right_context].

    Raises:
      ValueError: if a size is out of range.
    """
    if block_size < 1:
        raise ValueError(f"extract_block_context: block_size is {block_size}, expected at least 1.")
    if not 1 <= left_context <= block_size + 1:
        raise ValueError(
            f"extract_block_context: left_context is {left_context}, expected 1 to "
            f"block_size + 1 = {block_size + 1}."
        )
    if not 0 <= right_context <= block_size:
        raise ValueError(
            f"extract_block_context: right_context is {right_context}, expected 0 to "
            f"block_size = {block_size}."
        )
    num_blocks = -(-x.shape[1] // block_size)
    after = num_blocks * block_size - x.shape[1] + right_context
    padded = _pad_time(x, left_context - 1, after, padding_val)
    width = block_size + left_context - 1 + right_context
    start = jnp.arange(num_blocks)[:, jnp.newaxis] * block_size
    return padded[:, start + jnp.arange(width)[jnp.newaxis]]


def local_block_mask(
    seq_len: int, block_size: int, left_context: int, right_context: int
) -> Bool[Array, "U W C"]:
    """Which keys of `extract_block_context` the queries of `convert_to_block` may see.

    Args:
      seq_len: T.
      block_size: W.
      left_context: Keys up to the query, itself included.
      right_context: Keys after the query.

    Returns:
      [U, W, C], True where the query and the key are both within T and near enough.
    """
    num_blocks = -(-seq_len // block_size)
    width = block_size + left_context - 1 + right_context
    query = jnp.arange(num_blocks * block_size).reshape(num_blocks, block_size, 1)
    first = jnp.arange(num_blocks).reshape(num_blocks, 1, 1) * block_size - left_context + 1
    key = first + jnp.arange(width).reshape(1, 1, width)
    near = (key > query - left_context) & (key <= query + right_context)
    return near & (query < seq_len) & (key >= 0) & (key < seq_len)


def blocks_of_mask(
    mask: AttentionMask, block_size: int, left_context: int, right_context: int
) -> Bool[Array, "_ _ U W C"]:
    """What a mask and `local_block_mask` let queries see, without the mask of T by T.

    Args:
      mask: Of T queries and as many keys.
      block_size: W.
      left_context: Keys up to the query, itself included.
      right_context: Keys after the query.

    Returns:
      [B, N, U, W, C], with 1 for B or N where these share it.
    """
    length = mask.target_len
    num_blocks = -(-length // block_size)
    width = block_size + left_context - 1 + right_context
    spare = num_blocks * block_size - length
    queries, keys = (0, spare), (left_context - 1, spare + right_context)
    dense = mask.dense
    if dense is not None:
        by_query = queries if dense.shape[2] > 1 else (0, 0)
        dense = jnp.pad(dense, [(0, 0), (0, 0), by_query, keys])
    # What is padded, `local_block_mask` hides.
    padded = dataclasses.replace(
        mask,
        target_len=length + sum(queries),
        source_len=length + sum(keys),
        query_offset=mask.query_offset + keys[0],
        query_segment_ids=_pad_rows(mask.query_segment_ids, queries),
        key_segment_ids=_pad_rows(mask.key_segment_ids, keys),
        query_paddings=_pad_rows(mask.query_paddings, queries),
        key_paddings=_pad_rows(mask.key_paddings, keys),
        visible_keys=_pad_rows(mask.visible_keys, keys),
        dense=dense,
    )
    starts = jnp.arange(num_blocks) * block_size
    keep = jax.vmap(lambda start: padded.block(start, block_size, start, width), out_axes=2)(starts)
    near = local_block_mask(length, block_size, left_context, right_context)
    return keep & near[jnp.newaxis, jnp.newaxis]


def _pad_rows(x: Any, padding: tuple[int, int]) -> Any:
    return x if x is None else jnp.pad(x, [(0, 0), padding])


def _pad_time(
    x: Shaped[Array, "B T *D"], before: int, after: int, value: Padding
) -> Shaped[Array, "B _ *D"]:
    padding = [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, padding, constant_values=value)

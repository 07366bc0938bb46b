"""Reshapes of the batch axis: [B, ...] to [outer, B / outer, ...] and back."""

from typing import TypeVar

import jax
import numpy as np

ArrayLike = TypeVar("ArrayLike", jax.Array, np.ndarray)


def reshape_with_outer_batch_size(array: ArrayLike, outer_bs: int) -> ArrayLike:
    """[B, ...] to [outer_bs, B / outer_bs, ...].

    Raises:
      ValueError: if the outer size does not divide the batch.
    """
    if outer_bs < 1 or array.ndim == 0 or array.shape[0] % outer_bs:
        raise ValueError(
            f"An array of shape {array.shape} cannot be split on axis 0 into {outer_bs} equal "
            "parts."
        )
    return array.reshape((outer_bs, array.shape[0] // outer_bs, *array.shape[1:]))


def combine_inner_and_outer_batches(array: ArrayLike) -> ArrayLike:
    """[outer, inner, ...] to [outer * inner, ...]."""
    return array.reshape((array.shape[0] * array.shape[1], *array.shape[2:]))


def reshard(array: ArrayLike) -> ArrayLike:
    """[B, ...] to [n, B / n, ...] with n local devices.

    Raises:
      ValueError: if the devices do not divide the batch.
    """
    return reshape_with_outer_batch_size(array, jax.local_device_count())


def unshard(array: ArrayLike) -> ArrayLike:
    """[n, B / n, ...] to [B, ...]: the inverse of `reshard`."""
    return combine_inner_and_outer_batches(array)

"""Batches of NumPy arrays: conversion, padding, placement on devices."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from praxis.core.nested_map import NestedMap
from praxis.utils import devices


def to_batch(tree: Any) -> Any:
    """Maps as NestedMaps and leaves as NumPy arrays."""
    return jax.tree.map(np.asarray, NestedMap.FromNestedDict(tree))


def pad_rows(batch: Any, count: int) -> Any:
    """Adds rows of zeros at the end of axis 0 of each array."""

    def pad(array: Any) -> np.ndarray:
        array = np.asarray(array)
        return np.concatenate([array, np.zeros((count, *array.shape[1:]), array.dtype)])

    return jax.tree.map(pad, batch)


def make_array_in_order(batch: Any, mesh: Mesh, device_ids: Sequence[int]) -> Any:
    """Global arrays whose rows lie on the devices in a given order.

    The rows of this process are split evenly over its devices, in the order of the mesh.

    Args:
      batch: Tree of host-local arrays [B, ...].
      mesh: Over all devices.
      device_ids: Ids of all devices of the mesh, in the order of the rows of the result.

    Raises:
      ValueError: if the ids are not those of the mesh, or if the rows do not divide over the local
        devices.
    """
    by_id = {device.id: device for device in mesh.devices.flat}
    if sorted(device_ids) != sorted(by_id):
        raise ValueError(
            f"custom_device_order is {list(device_ids)}, expected the ids of the devices of the "
            f"mesh, {sorted(by_id)}, in another order."
        )
    ordered = Mesh(np.array([by_id[device_id] for device_id in device_ids]), ("rows",))
    sharding = NamedSharding(ordered, PartitionSpec("rows"))

    def make(array: np.ndarray) -> jax.Array:
        devices.check_divisible(array.shape, len(mesh.local_devices))
        rows = array.shape[0] // len(mesh.local_devices)
        pieces = [
            jax.device_put(array[i * rows : (i + 1) * rows], device)
            for i, device in enumerate(mesh.local_devices)
        ]
        shape = (rows * mesh.devices.size, *array.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, pieces)

    return jax.tree.map(make, batch)

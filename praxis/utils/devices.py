"""Device meshes, sharding constraints, and arrays over the devices of several processes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

_MAX_SUGGESTIONS = 6


def is_tpu() -> bool:
    """Whether the default backend is a TPU."""
    return jax.default_backend() == "tpu"


def _factorisations(count: int, rank: int) -> Iterator[tuple[int, ...]]:
    """All shapes of a rank with a product, the largest last axis first."""
    if rank == 1:
        yield (count,)
        return
    for last in range(count, 0, -1):
        if count % last == 0:
            for rest in _factorisations(count // last, rank - 1):
                yield (*rest, last)


def _check_device_count(name: str, shape: Sequence[int], found: int) -> None:
    needed = math.prod(shape)
    if needed == found:
        return
    fitting = [list(each) for each in _factorisations(found, len(shape))] if shape else []
    suggestions = ", ".join(map(str, fitting[:_MAX_SUGGESTIONS]))
    more = ", ..." if len(fitting) > _MAX_SUGGESTIONS else ""
    raise ValueError(
        f"{name} {list(shape)} needs {needed} devices, {found} found. "
        f"Shapes that fit: {suggestions}{more}."
    )


def create_device_mesh(
    ici_mesh_shape: Sequence[int],
    dcn_mesh_shape: Sequence[int] | None = None,
    contiguous_submeshes: bool = False,
) -> np.ndarray:
    """Arranges all devices in a mesh.

    Args:
      ici_mesh_shape: Devices along each axis inside a slice, whose links are fast.
      dcn_mesh_shape: Slices along each axis; None or all 1 for a single slice.
      contiguous_submeshes: On TPU, keep the devices of a host next to each other.

    Returns:
      Devices, in the elementwise product of the two shapes.

    Raises:
      ValueError: if the shapes need another number of devices than there are, if their ranks
        differ, or if they ask for several slices and the devices have none.
    """
    devices = jax.devices()
    if dcn_mesh_shape is not None and any(size > 1 for size in dcn_mesh_shape):
        return _create_hybrid_mesh(ici_mesh_shape, dcn_mesh_shape, devices)
    _check_device_count("ici_mesh_shape", ici_mesh_shape, len(devices))
    if devices[0].platform == "cpu":
        return np.asarray(devices).reshape(tuple(ici_mesh_shape))
    mesh = mesh_utils.create_device_mesh(
        ici_mesh_shape, devices=devices, contiguous_submeshes=contiguous_submeshes
    )
    logging.info("Device mesh: %s", mesh)
    return mesh


def _create_hybrid_mesh(
    ici_mesh_shape: Sequence[int], dcn_mesh_shape: Sequence[int], devices: Sequence[Any]
) -> np.ndarray:
    shapes = f"ici_mesh_shape {list(ici_mesh_shape)} and dcn_mesh_shape {list(dcn_mesh_shape)}"
    if len(ici_mesh_shape) != len(dcn_mesh_shape):
        raise ValueError(f"{shapes} have different ranks.")
    slices = {getattr(device, "slice_index", None) for device in devices}
    if None in slices or len(slices) != math.prod(dcn_mesh_shape):
        found = "no slices" if None in slices else f"{len(slices)} slices"
        raise ValueError(
            f"{shapes} ask for {math.prod(dcn_mesh_shape)} slices, but the {len(devices)} "
            f"{devices[0].platform} devices have {found}. For a single slice leave out "
            "dcn_mesh_shape and write the whole mesh as ici_mesh_shape."
        )
    _check_device_count("ici_mesh_shape", ici_mesh_shape, len(devices) // len(slices))
    return mesh_utils.create_hybrid_device_mesh(ici_mesh_shape, dcn_mesh_shape, devices=devices)


def get_global_input_shape_dtype(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the batch of all processes, given an array [B, ...] of one."""
    return jax.ShapeDtypeStruct((x.shape[0] * jax.process_count(), *x.shape[1:]), x.dtype)


def make_array(
    host_arrays: Any,
    global_shapes: Any,
    global_mesh: Mesh,
    pspecs: Any = None,
    sharding: Sharding | None = None,
) -> Any:
    """Makes global arrays of the arrays that each process holds.

    Args:
      host_arrays: Tree of host-local arrays [B, ...]; axis 0 is split over the local devices.
      global_shapes: Tree of `jax.ShapeDtypeStruct` of the global arrays.
      global_mesh: Over all devices.
      pspecs: Tree of PartitionSpec, or one for all. Either this or `sharding`.
      sharding: One sharding for all arrays.

    Returns:
      Tree of global arrays.

    Raises:
      ValueError: if not exactly one of `pspecs` and `sharding` is given, or if a batch does not
        divide over the local devices.
    """
    if (pspecs is None) == (sharding is None):
        raise ValueError(
            f"make_array takes exactly one of pspecs and sharding, got pspecs={pspecs} and "
            f"sharding={sharding}."
        )
    count = len(global_mesh.local_devices)

    def make(array: Any, shape: jax.ShapeDtypeStruct, spec: Any) -> jax.Array:
        array_sharding = spec if isinstance(spec, Sharding) else NamedSharding(global_mesh, spec)
        if array.shape[:1] != shape.shape[:1] or not array_sharding.is_fully_replicated:
            check_divisible(array.shape, count)
        return jax.make_array_from_process_local_data(array_sharding, array, shape.shape)

    if sharding is not None or isinstance(pspecs, PartitionSpec):
        common = pspecs if sharding is None else sharding
        return jax.tree.map(lambda x, shape: make(x, shape, common), host_arrays, global_shapes)
    return jax.tree.map(make, host_arrays, global_shapes, pspecs)


def check_divisible(shape: tuple[int, ...], count: int) -> None:
    """Checks that axis 0 of a host-local array divides over the local devices.

    Raises:
      ValueError: if it does not.
    """
    if not shape or shape[0] % count:
        raise ValueError(
            f"An array of shape {shape} cannot be split on axis 0 over {count} local devices. "
            f"Make the batch size a multiple of {count}."
        )


def sync_global_devices(name: str) -> None:
    """Waits until all processes have called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def set_globally_use_rbg_prng_key() -> None:
    """Makes `rbg` the default random generator: faster on TPU, weaker than threefry."""
    jax.config.update("jax_default_prng_impl", "rbg")


def _is_on_several_devices(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.ndim > 0 and len(x.sharding.device_set) > 1


def maybe_unreplicate_for_fully_replicated(data: Any) -> Any:
    """The value on one device of each array that is replicated; other leaves as they are."""
    return jax.tree.map(
        lambda x: (
            x.addressable_data(0) if _is_on_several_devices(x) and x.is_fully_replicated else x
        ),
        data,
    )


def maybe_unreplicate_for_first_shard(data: Any) -> Any:
    """The first local shard of each array that lies on several devices; others as they are."""
    return jax.tree.map(lambda x: x.addressable_data(0) if _is_on_several_devices(x) else x, data)

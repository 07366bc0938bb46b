"""Helpers of the old `pmap` trainer: what keeps a meaning works, the rest names a replacement."""

from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from praxis.utils.devices import check_divisible


def is_mock_tpu_backend() -> bool:
    """False: JAX has no mock of a TPU any more."""
    return False


def pmap_use_tensorstore() -> bool:
    """False: arrays of `pmap`, which checkpoints would have to convert, are not made any more."""
    return False


def put_to_devices(host_array: np.ndarray, local_devices: Sequence[Any]) -> list[jax.Array]:
    """Puts equal parts of a host array on devices.

    `make_array` makes one global array instead.

    Args:
      host_array: [B, ...].
      local_devices: The devices; their number divides B.

    Returns:
      One array [B / devices, ...] for each device, in order.

    Raises:
      ValueError: if the batch does not divide.
    """
    check_divisible(np.shape(host_array), len(local_devices))
    parts = np.split(np.asarray(host_array), len(local_devices))
    return [jax.device_put(*pair) for pair in zip(parts, local_devices, strict=True)]


def convert_fully_replicated_array_to_pmap_array(arr: Any) -> NoReturn:
    """Gone with `pmap`: a replicated array is used as it is.

    Raises:
      NotImplementedError: always.
    """
    raise _gone(
        "convert_fully_replicated_array_to_pmap_array",
        arr,
        "A fully replicated jax.Array is used as it is; one copy is `arr.addressable_data(0)`.",
    )


def convert_host_local_array_to_global_array(arr: Any) -> NoReturn:
    """Gone with `pmap`: use `make_array`.

    Raises:
      NotImplementedError: always.
    """
    raise _gone(
        "convert_host_local_array_to_global_array",
        arr,
        "Use praxis.py_utils.make_array(host_arrays, global_shapes, mesh, pspecs), which takes the "
        "mesh that the array is spread over.",
    )


def _gone(function: str, arr: Any, advice: str) -> NotImplementedError:
    return NotImplementedError(
        f"{function} was for arrays of jax.pmap, which are not made any more (given: an array of "
        f"shape {np.shape(arr)}). {advice}"
    )

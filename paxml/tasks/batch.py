"""How many rows a process reads, from the rows that a device trains on."""

import math
from collections.abc import Sequence

import jax


def mesh_size(*shapes: Sequence[int] | None) -> int | None:
    """Devices of a mesh given by its shape inside a slice and across slices; None without one."""
    given = [math.prod(shape) for shape in shapes if shape is not None]
    return math.prod(given) if given else None


def rows_per_process(percore_batch_size: int | float, num_devices: int | None) -> tuple[int, int]:
    """Rows of a batch of one process, and the number of processes that read data.

    Args:
      percore_batch_size: Rows for each device; below 1 several devices share a row.
      num_devices: Devices of the mesh, None for all there are. A single process counts with the
        mesh, not with its own devices, so that a job can be described on a smaller machine.

    Returns:
      The rows, at least 1; and the processes: with less than a row each, fewer than there are.
    """
    processes = jax.process_count()
    local = jax.local_device_count()
    if processes == 1 and num_devices is not None:
        local = num_devices
    rows = percore_batch_size * local
    if rows >= 1:
        return round(rows), processes
    return 1, max(1, round(rows * processes))

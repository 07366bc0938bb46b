"""Whether all processes have come to the same point, asked without waiting for ever."""

import jax
from absl import logging
from orbax import checkpoint as ocp

# How long a process whose data ended waits for the others to say so too, in seconds. They are at
# most a few steps apart.
AGREE_SECS = 30


def all_processes_at(point: str, timeout_secs: int = AGREE_SECS) -> bool:
    """Waits until all processes have called this with the same name, but not for ever.

    It is for what may happen in one process alone, such as the end of its data. To go on together,
    as for a checkpoint, would then wait for the others, which wait for this one.

    Args:
      point: Name of the point, which a run comes to once.
      timeout_secs: How long to wait, in seconds.

    Returns:
      Whether they have; True for a process that is alone.
    """
    if jax.process_count() == 1:
        return True
    try:
        ocp.multihost.sync_global_processes(
            point, timeout=timeout_secs, processes=set(range(jax.process_count()))
        )
    except RuntimeError as error:
        logging.warning("Not all processes came to %r within %d s.", point, timeout_secs)
        logging.debug("%s", error)
        return False
    return True

"""Several processes: how one begins, and how it ends when something fails."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import app, logging

from paxml.launch.cluster import Processes, find_processes
from paxml.launch.flags import FLAGS
from paxml.program.stop import TrainingStopped

# What JAX and its transports say when the other end of a connection is gone.
_SIGNS_OF_LOSS = (
    "gloo",
    "nccl",
    "heartbeat",
    "connection closed",
    "connection reset",
    "coordination service",
    "coordinationservice",
    "barrier",
    "unavailable",
)


def start_processes() -> None:
    """Starts `jax.distributed` if the run has more than one process; comes before any other call.

    Raises:
      app.UsageError: for flags that do not fit together, or if there is nothing to start.
      ValueError: if the environment contradicts itself.
    """
    found = chosen_processes()
    if found is None or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(
            coordinator_address=found.address,
            num_processes=found.count,
            process_id=found.index,
            local_device_ids=found.local_device_ids,
            # Otherwise JAX would look for a cluster around a run that is told everything.
            cluster_detection_method="deactivate" if found.address else None,
            heartbeat_timeout_seconds=FLAGS.heartbeat_timeout_secs,
        )
    except ValueError as error:  # in words of JAX's arguments
        raise app.UsageError(
            f"The processes of this run are not known ({found.found_by}): {error} Give each of "
            "them --server_addr, --num_hosts and --host_idx."
        ) from error
    logging.info(
        "Process %d of %d, by %s.", jax.process_index(), jax.process_count(), found.found_by
    )


def chosen_processes() -> Processes | None:
    """What the flags say about the processes of the run, else the environment.

    Returns:
      None if there is only this process.

    Raises:
      app.UsageError: for flags that do not fit together.
      ValueError: if the environment contradicts itself.
    """
    count, index, address = FLAGS.num_hosts, FLAGS.host_idx, FLAGS.server_addr
    if count > 1:
        if address is None:
            raise app.UsageError(
                f"--num_hosts is {count}, but --server_addr is missing: give host:port of process "
                "0 to all processes."
            )
        if not 0 <= index < count:
            raise app.UsageError(
                f"--host_idx is {index}, but --num_hosts is {count}; expected a number from 0 to "
                f"{count - 1}."
            )
        return Processes("flags", count, index, address)
    if address is not None or not FLAGS.detect_cluster:
        return None
    found = find_processes(os.environ)
    return Processes("--multiprocess_gpu") if found is None and FLAGS.multiprocess_gpu else found


def ending_together(call: Callable[[], int | None]) -> int | None:
    """Runs a program; if it fails as one of several processes, this one ends at once.

    Leaving in the usual way, JAX would wait for the others, which wait for this one.

    Args:
      call: Returns the exit code; None is 0. What it raises is printed.

    Returns:
      What the call returned, if it succeeded or is alone.
    """
    try:
        code = call()
    except TrainingStopped:  # all processes stop at the same step
        raise
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        _leave(error)
    if code and jax.distributed.is_initialized():
        _exit(code, "The error is above.")
    return code


def _leave(error: BaseException) -> NoReturn:
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        _exit(code, "The error is above.")
    if isinstance(error, KeyboardInterrupt):
        _exit(130, "It was interrupted.")
    if is_loss_of_contact(error):
        print(f"{type(error).__name__}: {str(error).partition(os.linesep)[0]}", file=sys.stderr)
        _exit(
            1,
            "It has lost contact with another process, which has ended or hangs: the first error "
            "in the output of the others says why. Start all processes again to go on from the "
            "newest checkpoint.",
        )
    traceback.print_exception(error)
    _exit(1, "The error is above.")


def is_loss_of_contact(error: BaseException | None) -> bool:
    """Whether an error comes from JAX, because another process does not answer."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS_OF_LOSS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _exit(code: int, reason: str) -> NoReturn:
    count = jax.process_count()
    print(
        f"Process {jax.process_index()} of {count} ends with exit code {code}. {reason} The other "
        f"processes end at the latest {FLAGS.heartbeat_timeout_secs} s later "
        "(--heartbeat_timeout_secs).",
        file=sys.stderr,
    )
    logging.flush()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)

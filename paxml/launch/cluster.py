"""Which processes a run has: what Slurm, Kubernetes, Open MPI and TPU pods say about it.

JAX asks most clusters for addresses by itself. Only JAX cannot be asked how many processes there
are before it starts them, and knows no JobSet without the right to read Kubernetes' API; that is
read from the environment here.
"""

import dataclasses
from collections.abc import Mapping

DEFAULT_PORT = "8476"

_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this is.

    Attributes:
      found_by: Who said so, for messages.
      count: Number of processes; None leaves all that follows to JAX.
      index: Number of this one, from 0; None leaves it and the address to JAX.
      address: host:port of process 0.
      local_device_ids: Accelerators that this process takes; None leaves that to JAX.
    """

    found_by: str
    count: int | None = None
    index: int | None = None
    address: str | None = None
    local_device_ids: tuple[int, ...] | None = None


def find_processes(environ: Mapping[str, str]) -> Processes | None:
    """What the environment says about the processes of this run; None if there is only one.

    Args:
      environ: Environment variables.

    Raises:
      ValueError: if they contradict each other.
    """
    for look in (_by_hand_or_kubernetes, _tpu_pod, _slurm, _open_mpi):
        found = look(environ)
        if found is not None and found.count != 1:
            return found
    return None


def _by_hand_or_kubernetes(environ: Mapping[str, str]) -> Processes | None:
    """JAX_NUM_PROCESSES and, by hand or by an indexed Job or JobSet, the number of this one."""
    if "JAX_NUM_PROCESSES" not in environ:
        return None
    count = _number(environ, "JAX_NUM_PROCESSES")
    if "JAX_PROCESS_ID" in environ:
        found_by, index = "JAX_PROCESS_ID", _number(environ, "JAX_PROCESS_ID")
    elif "JOB_COMPLETION_INDEX" in environ:
        found_by, index = "Kubernetes", _index_in_jobset(environ, count)
    else:
        raise ValueError(
            f"JAX_NUM_PROCESSES is {count}, but neither JAX_PROCESS_ID nor JOB_COMPLETION_INDEX "
            "(of a Kubernetes Job with completionMode: Indexed) says which process this is."
        )
    if count == 1:
        return None
    if not 0 <= index < count:
        raise ValueError(
            f"This is process {index} by {found_by}, but JAX_NUM_PROCESSES is {count}; expected a "
            f"number from 0 to {count - 1}."
        )
    return Processes(found_by, count, index, _address(environ))


def _index_in_jobset(environ: Mapping[str, str], count: int) -> int:
    """Pods are numbered job by job."""
    index, jobs = _number(environ, "JOB_COMPLETION_INDEX"), _number(environ, "JOBSET_JOBS", "1")
    if jobs < 1 or count % jobs:
        raise ValueError(
            f"JAX_NUM_PROCESSES is {count}, but JOBSET_JOBS is {jobs}; expected a multiple of it."
        )
    return _number(environ, "JOBSET_JOB_INDEX", "0") * (count // jobs) + index


def _address(environ: Mapping[str, str]) -> str:
    if "JAX_COORDINATOR_ADDRESS" in environ:
        return environ["JAX_COORDINATOR_ADDRESS"]
    names = [environ.get(name) for name in ("JOBSET_NAME", "JOBSET_REPLICATED_JOB")]
    if None in names:
        raise ValueError(
            "JAX_COORDINATOR_ADDRESS is not set: give host:port of process 0, or in a JobSet "
            "JOBSET_NAME and JOBSET_REPLICATED_JOB."
        )
    port = environ.get("JAX_COORDINATOR_PORT", DEFAULT_PORT)
    return f"{names[0]}-{names[1]}-0-0.{names[0]}:{port}"


def _tpu_pod(environ: Mapping[str, str]) -> Processes | None:
    """The hosts of a slice on GKE, times the slices."""
    hosts = next((environ[name] for name in _TPU_HOSTS if environ.get(name)), None)
    if hosts is None or "TPU_WORKER_ID" not in environ:
        return None
    slices = _number(environ, "MEGASCALE_NUM_SLICES", "1")
    return Processes("TPU", len(hosts.split(",")) * slices)


def _slurm(environ: Mapping[str, str]) -> Processes | None:
    """The tasks of an `srun`; in the batch script itself there is no step, and one process."""
    if not all(name in environ for name in _SLURM):
        return None
    devices = None
    # JAX gives each task one accelerator, the right thing only for one task an accelerator.
    if environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1":
        devices = tuple(range(_number(environ, "SLURM_GPUS_ON_NODE", "0"))) or None
    return Processes("Slurm", _number(environ, "SLURM_NTASKS"), local_device_ids=devices)


def _open_mpi(environ: Mapping[str, str]) -> Processes | None:
    if "OMPI_MCA_orte_hnp_uri" not in environ or "OMPI_COMM_WORLD_SIZE" not in environ:
        return None
    return Processes("Open MPI", _number(environ, "OMPI_COMM_WORLD_SIZE"))


def _number(environ: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environ[name] if default is None else environ.get(name, default)
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"The environment variable {name} is {text!r}, expected a number."
        ) from None

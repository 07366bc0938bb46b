"""What the flags and the environment say about the processes of a run."""

import jax
import pytest
from absl import app, flags
from absl.testing import flagsaver

from paxml.launch import processes
from paxml.launch.cluster import Processes, find_processes

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[003-006]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
JOBSET = {
    "JAX_NUM_PROCESSES": "6",
    "JOB_COMPLETION_INDEX": "1",
    "JOBSET_NAME": "run",
    "JOBSET_REPLICATED_JOB": "workers",
    "JOBSET_JOBS": "2",
    "JOBSET_JOB_INDEX": "1",
}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "1"}
MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "5"}
BY_HAND = {
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
    "JAX_COORDINATOR_ADDRESS": "head:1234",
}


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (SLURM, Processes("Slurm", 4)),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        # In the batch script, outside of any step.
        ({name: SLURM[name] for name in SLURM if name != "SLURM_STEP_NODELIST"}, None),
        # One process with all accelerators of its machine; JAX would take one of them.
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_GPUS_ON_NODE": "3"},
            Processes("Slurm", 4, local_device_ids=(0, 1, 2)),
        ),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, Processes("Slurm", 4)),
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_GPUS_ON_NODE": "2"},
            Processes("Slurm", 4),
        ),
        (JOBSET, Processes("Kubernetes", 6, 4, "run-workers-0-0.run:8476")),
        (
            {**JOBSET, "JAX_COORDINATOR_PORT": "99"},
            Processes("Kubernetes", 6, 4, "run-workers-0-0.run:99"),
        ),
        # A Job with a headless service.
        (
            {
                "JAX_NUM_PROCESSES": "3",
                "JOB_COMPLETION_INDEX": "2",
                "JAX_COORDINATOR_ADDRESS": "train-0.pods:1",
            },
            Processes("Kubernetes", 3, 2, "train-0.pods:1"),
        ),
        # The pods of a sweep train one by one.
        ({"JOB_COMPLETION_INDEX": "2"}, None),
        (TPU, Processes("TPU", 3)),
        ({**TPU, "MEGASCALE_NUM_SLICES": "2"}, Processes("TPU", 6)),
        ({**TPU, "TPU_WORKER_HOSTNAMES": "localhost"}, None),
        (MPI, Processes("Open MPI", 5)),
        ({**MPI, "OMPI_COMM_WORLD_SIZE": "1"}, None),
        (BY_HAND, Processes("JAX_PROCESS_ID", 2, 1, "head:1234")),
        ({**SLURM, **BY_HAND}, Processes("JAX_PROCESS_ID", 2, 1, "head:1234")),
        ({"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
    ],
    ids=str,
)
def test_environments(environ, expected):
    assert find_processes(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({**SLURM, "SLURM_NTASKS": "many"}, "SLURM_NTASKS is 'many', expected a number"),
        ({"JAX_NUM_PROCESSES": "2"}, "neither JAX_PROCESS_ID nor JOB_COMPLETION_INDEX"),
        ({**BY_HAND, "JAX_PROCESS_ID": "2"}, "process 2 by JAX_PROCESS_ID.*from 0 to 1"),
        ({**JOBSET, "JOBSET_JOBS": "4"}, "JAX_NUM_PROCESSES is 6, but JOBSET_JOBS is 4"),
        (
            {"JAX_NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "0"},
            "JAX_COORDINATOR_ADDRESS is not set.*JOBSET_NAME and JOBSET_REPLICATED_JOB",
        ),
    ],
    ids=str,
)
def test_contradictions(environ, message):
    with pytest.raises(ValueError, match=message):
        find_processes(environ)


def test_flags_come_before_the_environment(monkeypatch):
    for name, value in BY_HAND.items():
        monkeypatch.setenv(name, value)
    with flagsaver.flagsaver(num_hosts=3, host_idx=2, server_addr="a:1"):
        assert processes.chosen_processes() == Processes("flags", 3, 2, "a:1")
    with flagsaver.flagsaver(num_hosts=1, server_addr="a:1", multiprocess_gpu=True):
        assert processes.chosen_processes() is None
    with flagsaver.flagsaver(detect_cluster=False, multiprocess_gpu=True):
        assert processes.chosen_processes() is None
    found = processes.chosen_processes()
    assert found is not None
    assert found.found_by == "JAX_PROCESS_ID"
    monkeypatch.delenv("JAX_NUM_PROCESSES")
    assert processes.chosen_processes() is None
    with flagsaver.flagsaver(multiprocess_gpu=True):
        assert processes.chosen_processes() == Processes("--multiprocess_gpu")


def test_flags_that_do_not_fit_together():
    with flagsaver.flagsaver(num_hosts=3), pytest.raises(app.UsageError, match="--server_addr is"):
        processes.chosen_processes()
    with (
        flagsaver.flagsaver(num_hosts=3, host_idx=3, server_addr="a:1"),
        pytest.raises(app.UsageError, match=r"--host_idx is 3, but --num_hosts is 3.*from 0 to 2"),
    ):
        processes.chosen_processes()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (SLURM, (None, 4, None, None)),
        (JOBSET, ("run-workers-0-0.run:8476", 6, 4, "deactivate")),
    ],
    ids=["alone", "slurm", "jobset"],
)
def test_jax_is_started_only_for_several_processes(monkeypatch, environ, expected):
    """What is not known here is left to JAX."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with flagsaver.flagsaver(heartbeat_timeout_secs=7):
        processes.start_processes()
    if expected is None:
        assert not calls
        return
    (given,) = calls
    assert given.pop("heartbeat_timeout_seconds") == 7
    assert given.pop("local_device_ids") is None
    assert tuple(given.values()) == expected


def test_what_jax_cannot_find_is_an_error_that_names_the_flags(monkeypatch):
    def fail(**given):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with (
        flagsaver.flagsaver(multiprocess_gpu=True),
        pytest.raises(app.UsageError, match=r"not known \(--multiprocess_gpu\).*--server_addr"),
    ):
        processes.start_processes()

"""How processes end: those that `pax launch` started, and one of several with an error."""

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest
import toy_experiment
from absl import flags
from orbax import checkpoint as ocp

from paxml import cli, train
from paxml.launch import processes
from paxml.launch.commands import launch
from paxml.program.agree import all_processes_at
from paxml.program.stop import InputExhaustedError, TrainingStopped

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)"
    f"\n{SLEEP}"
)


def group_of(*codes, grace_secs=10.0):
    """Small Python programs in place of the processes of a run."""
    started = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for code in codes
    ]
    return launch._Group(started, grace_secs), started


def test_output_has_the_number_of_its_process(capsys):
    group, _ = group_of("print('a\\nb')", "import sys; sys.stderr.write('no end of line')")
    assert group.wait() == 0
    captured = capsys.readouterr()
    assert captured.out == "[0] a\n[0] b\n"
    assert captured.err == "[1] no end of line\n"


@pytest.mark.parametrize(
    ("ends", "code", "how"),
    [
        ("raise SystemExit(7)", 7, "with exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", 137, "by SIGKILL"),
        (
            "import os; os.abort()",
            134,
            "by SIGABRT (so JAX ends a process when another does not answer)",
        ),
    ],
    ids=["code", "signal", "abort"],
)
def test_the_first_that_fails_ends_the_others(capsys, ends, code, how):
    group, started = group_of(SLEEP, ends, SLEEP)
    assert group.wait() == code
    assert [process.returncode for process in started[::2]] == [-signal.SIGTERM] * 2
    assert f"process 1 of 3 was the first to end, {how}. " in capsys.readouterr().err


def test_one_that_does_not_end_is_killed(capsys):
    group, started = group_of(STUBBORN, "import time; time.sleep(1); raise SystemExit(3)")
    group._grace_secs = 0.5
    start = time.monotonic()
    assert group.wait() == 3
    assert time.monotonic() - start < 20
    assert started[0].returncode == -signal.SIGKILL
    assert "[0] ready" in capsys.readouterr().out


def test_a_signal_goes_on_to_all(capsys):
    before = signal.getsignal(signal.SIGTERM)
    group, started = group_of(SLEEP, SLEEP)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert group.wait() == 128 + signal.SIGTERM
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == before
    assert "was the first to end" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes=2"], "takes one of the commands train, eval, decode; got none"),
        (["--processes=2", "plot"], "got 'plot'"),
        (["--processes=0", "train"], "--processes is 0, expected at least 1"),
        (["--processes=1", "--devices_per_process=0", "train"], "--devices_per_process is 0"),
    ],
)
def test_mistakes_of_the_command_line(capsys, arguments, message):
    assert cli.main(["launch", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_each_process_has_devices_of_its_own(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    environ = launch._environment(2, 3, "127.0.0.1:5")
    assert environ["XLA_FLAGS"].split() == [
        "--xla_a=1",
        "--xla_force_host_platform_device_count=3",
    ]
    assert environ["JAX_LOCAL_DEVICE_IDS"] == "6,7,8"


class Left(Exception):
    """In place of the end of the process."""


@pytest.fixture
def one_of_two(monkeypatch):
    """Makes this process look like the second of two; leaving it raises `Left`."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])

    def leave(code):
        raise Left(code)

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(os, "_exit", leave)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("a mistake"), 1, "ValueError: a mistake"),
        (SystemExit(5), 5, "exit code 5"),
        (KeyboardInterrupt(), 130, "It was interrupted."),
        (jax.errors.JaxRuntimeError("Gloo failed: Connection reset by peer"), 1, "lost contact"),
        (jax.errors.JaxRuntimeError("Out of memory"), 1, "The error is above."),
    ],
    ids=["mistake", "exit", "interrupt", "loss", "memory"],
)
def test_one_of_several_leaves_at_once(one_of_two, capsys, error, code, text):
    def fail():
        raise error

    with pytest.raises(Left) as left:
        processes.ending_together(fail)
    assert left.value.args == (code,)
    output = capsys.readouterr().err
    assert text in output
    assert f"Process 1 of 2 ends with exit code {code}." in output
    assert "The other processes end at the latest 100 s later (--heartbeat_timeout_secs)" in output
    assert ("lost contact" in output) == ("Gloo" in str(error))


def test_success_and_stops_leave_as_usual(one_of_two, capsys):
    assert processes.ending_together(lambda: None) is None

    def stop():
        raise TrainingStopped(143, 5)

    with pytest.raises(TrainingStopped):
        processes.ending_together(stop)
    with pytest.raises(Left):
        processes.ending_together(lambda: 2)
    assert "Process 1 of 2 ends with exit code 2." in capsys.readouterr().err


def test_alone_errors_are_as_they_were():
    def fail():
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        processes.ending_together(fail)
    assert processes.ending_together(lambda: 2) == 2


def test_waiting_for_the_others_ends(monkeypatch, caplog):
    assert all_processes_at("anywhere")
    asked = []

    def sync(name, *, timeout, processes):
        asked.append((name, timeout, processes))
        if name == "alone":
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(ocp.multihost, "sync_global_processes", sync)
    assert all_processes_at("end", 3)
    assert not all_processes_at("alone", 3)
    assert asked == [("end", 3, {0, 1}), ("alone", 3, {0, 1})]
    assert "Not all processes came to 'alone' within 3 s." in caplog.text


def test_data_that_ends_in_one_process_alone_is_not_saved(monkeypatch, tmp_path):
    """The others would have to take part."""
    monkeypatch.setattr("paxml.program.executor.all_processes_at", lambda point: False)
    experiment = toy_experiment.variant(NUM_BATCHES=2, EVAL=0)
    with pytest.raises(
        InputExhaustedError, match=r"after step 2.*not saved, since other processes have a next"
    ):
        train.train_and_evaluate(experiment, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint_00000000"]

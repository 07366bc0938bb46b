"""One training run at a time in a directory (behaviour 62 for the trainer)."""

import json
import os
import signal
import subprocess
import sys

import pytest
import toy_experiment

from paxml import train
from paxml.program.lock import LOCK_FILE, DirectoryInUseError, exclusive_use

HOLDER = """
import fcntl, json, os, sys, time
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write(json.dumps(
    {"pid": os.getpid(), "host": "elsewhere", "started": "today", "command": "pax train"}))
file.flush()
child = os.fork()  # does not inherit the lock
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks files by fcntl")
def test_a_living_process_keeps_others_out_and_a_dead_one_does_not(tmp_path):
    """Not even while a process that it had started lives on."""
    lock = tmp_path / LOCK_FILE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        orphan = int(holder.stdout.readline())
        try:
            message = (
                rf"{tmp_path} is in use: process {holder.pid} on elsewhere, started today "
                r"\(pax train\) is training in it\..* give another job_log_dir"
            )
            with pytest.raises(DirectoryInUseError, match=message):
                train.train_and_evaluate(toy_experiment.Toy(), tmp_path, False, False)
            assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(orphan, 0)  # it is alive
            assert lock.exists()
            with exclusive_use(tmp_path):
                assert json.loads(lock.read_text())["pid"] == os.getpid()
        finally:
            os.kill(orphan, signal.SIGKILL)
            holder.kill()
    assert not lock.exists()


def test_two_runs_of_one_process(tmp_path):
    (tmp_path / "other").mkdir()
    with exclusive_use(tmp_path), exclusive_use(tmp_path / "other"):
        with (
            pytest.raises(DirectoryInUseError, match="another run of this process is training"),
            exclusive_use(tmp_path),
        ):
            pass
        assert (tmp_path / LOCK_FILE).exists()
    with exclusive_use(tmp_path):
        pass


def test_a_file_of_another_kind_blocks_nothing(tmp_path):
    (tmp_path / LOCK_FILE).write_text("{")
    with exclusive_use(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_other_processes_of_a_run_take_no_part(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with exclusive_use(tmp_path), exclusive_use(tmp_path):
        assert list(tmp_path.iterdir()) == []

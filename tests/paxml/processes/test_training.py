"""Real processes that train together, over the loopback interface (behaviours 31, 62)."""

import json
import os
import pathlib
import re
import shutil
import time

import numpy as np
import process_experiment
import pytest

from paxml import cli, train
from paxml.program.lock import exclusive_use
from paxml.summary.events import read_scalars

ROOT = pathlib.Path(train.__file__).parents[1]
TESTS = pathlib.Path(process_experiment.__file__).parent

# A process that hangs would otherwise hold the tests for JAX's 100 seconds.
HEARTBEAT_SECS = 20


def losses_of(directory):
    return read_scalars(directory / "summaries" / "train", "loss")


def checkpoints_of(directory):
    return sorted(int(path.name[-8:]) for path in (directory / "checkpoints").iterdir())


def checkpoint_of(directory, step):
    return directory / "checkpoints" / f"checkpoint_{step:08d}"


@pytest.fixture
def launch(monkeypatch, capfd):
    """Trains with two processes of one device each; returns exit code and what they printed."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{TESTS}")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # to compile sooner

    def run(directory, hurt=None):
        if hurt is None:
            monkeypatch.delenv(process_experiment.HURT, raising=False)
        else:
            monkeypatch.setenv(process_experiment.HURT, hurt)
        code = cli.main(
            [
                "launch",
                "--processes=2",
                "train",
                "--exp=process_experiment.Shared",
                f"--job_log_dir={directory}",
                f"--heartbeat_timeout_secs={HEARTBEAT_SECS}",
            ]
        )
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    directory = tmp_path_factory.mktemp("alone")
    train.train_and_evaluate(process_experiment.Shared(), directory)
    return directory


def copy_until(source, directory, step):
    """The run as it was after the checkpoint of a step."""
    shutil.copytree(source, directory)
    for later in checkpoints_of(directory):
        if later > step:
            shutil.rmtree(checkpoint_of(directory, later))
    return directory


def assert_same_losses(directory, expected):
    found = losses_of(directory)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(
        [found[step] for step in expected], list(expected.values()), rtol=1e-5
    )


@pytest.mark.slow
def test_two_processes_train_as_one_does(alone, launch, tmp_path):
    """Behaviour 31: each reads its rows; one writes summaries; checkpoints fit other counts."""
    both = tmp_path / "both"
    code, output = launch(both)
    assert code == 0, output
    assert "[0] step 10/10" in output
    assert "[1] step" not in output
    assert_same_losses(both, losses_of(alone))
    assert checkpoints_of(both) == checkpoints_of(alone) == [0, 4, 8, 10]
    assert len(list((both / "summaries" / "train").glob("events.out.*"))) == 1
    saved = checkpoint_of(both, 4)
    shards = {path.name for path in (saved / "state" / "mdl_vars.params.m").iterdir()}
    assert {"0.0", "1.0"} <= shards
    for index in range(2):
        assert (saved / "train_input" / f"process_{index}-of-2").read_bytes() == b"4"
    for item in ("state", "train_input"):
        checksums = json.loads((saved / item / "checksums.json").read_text())
        assert checksums

    # From two processes to one.
    fewer = copy_until(both, tmp_path / "fewer", 4)
    train.train_and_evaluate(process_experiment.Shared(), fewer)
    assert_same_losses(fewer, losses_of(alone))
    refused = copy_until(both, tmp_path / "refused", 4)
    with pytest.raises(FileNotFoundError, match="written by 2 processes, this run has 1"):
        train.train_and_evaluate(process_experiment.NotJoined(), refused)


@pytest.mark.slow
def test_two_processes_end_together_and_go_on(alone, launch, tmp_path):
    """Behaviour 62: the directory is in use; one is killed, or interrupted; nothing is lost.

    They begin with the checkpoint of one process, and one process trains the last steps.
    """
    directory = copy_until(alone, tmp_path / "run", 4)
    with exclusive_use(directory):
        code, output = launch(directory)
    assert code == 2, output
    assert re.search(r"\[0\] pax train: error: .* is in use: process \d+", output)

    start = time.monotonic()
    code, output = launch(directory, hurt="1:6:SIGKILL")
    assert time.monotonic() - start < 90
    assert code == 128 + 9, output
    assert re.search(r"process 1 of 2 was the first to end, by SIGKILL\. The others are", output)
    assert re.search(
        r"\[0\] Process 0 of 2 ends with exit code 1\. It has lost contact with another process, "
        r"which has ended or hangs.*at the latest 20 s later \(--heartbeat_timeout_secs\)",
        output,
    ), output
    assert checkpoints_of(directory) == [0, 4]

    code, output = launch(directory, hurt="0:5:SIGINT")
    assert code in (130, 143), output
    (stopped,) = set(re.findall(r"Stopped at step (\d+) with a checkpoint", output))
    assert output.count(f"Stopped at step {stopped} with a checkpoint") == 2
    assert 5 < int(stopped) < 10
    assert checkpoints_of(directory)[-1] == int(stopped)

    train.train_and_evaluate(process_experiment.Shared(), directory)
    assert_same_losses(directory, losses_of(alone))

"""A run that is killed over and over loses nothing (behaviours 21, 22, 24-26, 34)."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from paxml import train

ROOT = pathlib.Path(train.__file__).parents[1]


@pytest.mark.slow
def test_a_run_killed_twenty_times_is_the_run_that_was_let_alone(tmp_path):
    """Behaviours 21, 22, 24, 25, 26, 34: bit for bit, whatever it was doing when it was killed.

    The run has dropout, a moving average of the weights, a running mean, two inputs of which one
    is shuffled, evaluations, and saves in the background in some of its starts. Some checkpoints
    are damaged between two starts.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "benchmarks.soak", "--runs=1", "--kills=20", "--steps=45"]
    done = subprocess.run(
        [*command, "--minutes=2", f"--dir={tmp_path}"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w[\w ]*\w) {2,}(\d+)", done.stdout, re.MULTILINE))
    assert int(counts["kills"]) >= 20
    assert int(counts["starts"]) > 20
    assert (counts["runs"], counts["lost"]) == ("1", "0")
    assert len(re.findall(r"\d+ in (?:step|save|between steps|evaluation)", done.stdout)) >= 2

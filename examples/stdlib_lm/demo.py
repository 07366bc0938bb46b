"""Trains the language model through `paxml.main`, then says how good it is.

Run by `make demo`. The last line of the output is one JSON object.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

EXPERIMENT = "examples.stdlib_lm.experiment.StdlibLm"
PROMPT = "def "


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description="Trains the model and reports.")
    parser.add_argument("--job_log_dir", type=pathlib.Path, default="runs/demo")
    parser.add_argument("--steps", type=int, help="length of the run; the default is the full one")
    options = parser.parse_args(arguments)
    announce(options.steps)
    code = train(options.job_log_dir, options.steps)
    if code:
        print(f"Training stopped with exit code {code}. The same command continues it.")
        return code
    # Imported late: while the trainer runs, this process should hold no memory of its own.
    from examples.stdlib_lm import report

    print(json.dumps(report.report(options.job_log_dir, options.steps, PROMPT)), flush=True)
    return 0


def announce(steps: int | None) -> None:
    """Says what will happen and how long it takes."""
    length = "about 5 minutes on 2 CPU cores" if steps is None else f"a quick look of {steps} steps"
    print(
        "Training a byte-level language model on the sources of Python's standard library: "
        f"{length}.\nStop it with Ctrl-C whenever you like; the same command continues from the "
        "last checkpoint.\n",
        flush=True,
    )


def train(job_log_dir: pathlib.Path, steps: int | None) -> int:
    """Trains through the public front door; returns its exit code."""
    command = [
        sys.executable,
        "-m",
        "paxml.main",
        f"--exp={EXPERIMENT}",
        f"--job_log_dir={job_log_dir}",
        "--eval_on_test",
        "--jax_fully_async_checkpoint",
        *([f"--set=NUM_STEPS={steps}"] if steps is not None else []),
    ]
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The trainer got the signal too: it saves a checkpoint and ends by itself.
            continue


if __name__ == "__main__":
    sys.exit(main())

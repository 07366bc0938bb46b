"""One run on one device, on a mesh of eight, and in four processes, also when some are killed.

usage: python -m benchmarks.scale_processes --dir=runs/scale

The losses of 100 steps must agree within 1e-4 and those of a run that was killed, stopped and
interrupted must be, bit for bit, those of the same run left alone. Writes a picture of the curves
and says how long it took until all processes had ended. The exit code is 1 if anything differs.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.scale_run import HURT
from paxml.summary.events import read_scalars
from paxml.summary.plot import draw_curves

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENT = "benchmarks.scale_run.Scale"
TOLERANCE = 1e-4
HEARTBEAT_SECS = 10
GRACE_SECS = 20
# Until the others are told that one hangs, the time in which JAX looks for it counts twice.
BOUND_SECS = 2 * HEARTBEAT_SECS + GRACE_SECS

Curve = Mapping[int, float]


class Layout(NamedTuple):
    """Processes, devices of each, and the mesh of all."""

    processes: int
    devices: int
    mesh: tuple[int, int, int]


LAYOUTS = {
    "one device": Layout(1, 1, (1, 1, 1)),
    "mesh of 4 x 2 devices": Layout(1, 8, (1, 4, 2)),
    "4 processes": Layout(4, 2, (1, 4, 2)),
}
# Of process 0, which the others talk to, too; one hangs in place of ending.
HURTS = ("2:25:SIGKILL", "0:45:SIGKILL", "1:57:SIGSTOP", "3:73:SIGTERM")


def train(directory: pathlib.Path, layout: Layout, hurt: str = "") -> tuple[int, str, float]:
    """Trains until the end, or until something ends it.

    Returns:
      The exit code, the output, and the seconds from the hurt, or the start, to the end.
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment.pop(HURT, None)
    if hurt:
        environment[HURT] = hurt
    command = [sys.executable, "-m", "paxml.cli"]
    if layout.processes > 1:
        command += ["launch", f"--processes={layout.processes}", f"--grace_secs={GRACE_SECS}"]
        command += [f"--devices_per_process={layout.devices}"]
    else:
        count = f"--xla_force_host_platform_device_count={layout.devices}"
        environment["XLA_FLAGS"] = count
    command += ["train", f"--exp={EXPERIMENT}", f"--job_log_dir={directory}"]
    command += [f"--set=ICI_MESH_SHAPE={layout.mesh}", f"--heartbeat_timeout_secs={HEARTBEAT_SECS}"]
    start = time.time()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    end = time.time()
    if found := re.search(r"hurt at ([\d.]+)", done.stdout):
        start = float(found[1])
    return done.returncode, done.stdout, end - start


def losses_of(directory: pathlib.Path) -> Curve:
    """Losses by step; of a step trained twice, the later one."""
    return read_scalars(directory / "summaries" / "train", "loss")


def largest_difference(one: Curve, other: Curve) -> float:
    """Between the losses of the same steps; infinite if the steps are others."""
    if one.keys() != other.keys():
        return float("inf")
    return max(abs(one[step] - other[step]) for step in one)


def compare_layouts(root: pathlib.Path, problems: list[str]) -> dict[str, Curve]:
    """Trains on each layout and compares the losses with those of one device."""
    curves: dict[str, Curve] = {}
    for name, layout in LAYOUTS.items():
        code, output, seconds = train(root / name.replace(" ", "_"), layout)
        if code:
            problems.append(f"{name} ended with exit code {code}:\n{output[-3000:]}")
            continue
        curve = curves[name] = losses_of(root / name.replace(" ", "_"))
        difference = largest_difference(curve, next(iter(curves.values())))
        print(
            f"{name:24} {len(curve)} steps in {seconds:.0f} s, loss {curve[min(curve)]:.4f} to "
            f"{curve[max(curve)]:.4f}, differs by {difference:.1e}",
            flush=True,
        )
        if not difference <= TOLERANCE:
            problems.append(f"{name}: losses differ by {difference}, more than {TOLERANCE}")
    return curves


def hurt_processes(root: pathlib.Path, expected: Curve, problems: list[str]) -> None:
    """Hurts one of four processes after the other, and goes on to the end."""
    directory, layout = root / "hurt", LAYOUTS["4 processes"]
    for hurt in HURTS:
        code, output, seconds = train(directory, layout, hurt)
        print(f"{hurt:24} all ended {seconds:.1f} s later, exit code {code}", flush=True)
        (root / f"{hurt.replace(':', '_')}.log").write_text(output)
        if not code or seconds > BOUND_SECS:
            problems.append(f"{hurt}: exit code {code} after {seconds:.0f} s:\n{output[-3000:]}")
    code, output, _ = train(directory, layout)
    difference = largest_difference(losses_of(directory), expected) if not code else float("inf")
    print(f"{'then to the end':24} exit code {code}, losses differ by {difference:.1e}")
    if code or difference:
        problems.append(f"the hurt run ended with {code}, losses differ by {difference}")


def main() -> int:
    """Runs everything; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scale_processes", description=__doc__)
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("runs/scale"))
    root = parser.parse_args().dir
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    problems: list[str] = []
    curves = compare_layouts(root, problems)
    if curves:
        picture = {name: {"train": curve} for name, curve in curves.items()}
        print(draw_curves(picture, root / "losses.png", "loss"))
    if "4 processes" in curves:
        hurt_processes(root, curves["4 processes"], problems)
    for problem in problems:
        print(f"problem: {problem}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())

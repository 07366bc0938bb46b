"""Kills and damages a tiny training run over and over, and counts the steps that get lost.

usage: python -m benchmarks.soak --minutes=30

Each run starts in an empty directory and is resumed after every kill until it reaches its last
step. Then its losses, read from the event files, its evaluations and its last checkpoint must be,
bit for bit, those of a run that was let alone. The exit code is 1 if any of them is not.
"""

import argparse
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from benchmarks import soak_chaos
from benchmarks.soak_chaos import Runs, Tally


def soak_once(runs: Runs, rng: random.Random, *, reference: pathlib.Path, kills: int) -> None:
    """Takes one run to its end in spite of so many kills, and tallies what came out of it."""
    tally, directory = runs.tally, runs.root / f"run_{runs.tally.runs:04}"
    damaged: set[str] = set()
    done = 0
    while done < kills:
        step = soak_chaos.step_of(directory)
        # So early that the steps last for the kills that are left.
        share = max(1, (runs.steps - step) // (kills - done + 1))
        moment = soak_chaos.random_moment(
            runs, rng, first=step, last=min(step + share, runs.steps - 1)
        )
        kind = signal.SIGTERM if rng.random() < 0.1 else signal.SIGKILL
        if not runs.kill_when(directory, moment, kind):
            break
        done += kind == signal.SIGKILL
        whole = soak_chaos.checkpoints_of(directory)
        if len(whole) > 1 and rng.random() < 0.25:
            tally.damages[soak_chaos.damage(whole[-1], rng)] += 1
            damaged.add(whole[-1].name)
    runs.finish(directory)
    tally.runs += 1
    tally.steps += runs.steps
    log = directory.with_suffix(".log").read_text(errors="replace")
    tally.skipped += log.count("is skipped: ")
    lost = soak_chaos.differences(directory, reference, steps=runs.steps, damaged=damaged)
    tally.lost += [f"{directory.name}: {line}" for line in lost]
    if not lost:
        shutil.rmtree(directory)
        directory.with_suffix(".log").unlink()


def report(tally: Tally, seconds: float) -> str:
    """The tally as text; lines of what was lost come last."""
    kills = ", ".join(f"{count} in {phase}" for phase, count in sorted(tally.kills.items()))
    damages = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.damages.items()))
    lines = [
        f"time                 {seconds / 60:.1f} minutes",
        f"runs                 {tally.runs}, of {tally.steps} steps altogether",
        f"starts               {tally.starts}",
        f"kills                {sum(tally.kills.values())}: {kills or 'none'}",
        f"terminations         {tally.terminations}",
        f"damaged checkpoints  {sum(tally.damages.values())}: {damages or 'none'}",
        f"checkpoints skipped  {tally.skipped} warnings",
        f"lost                 {len(tally.lost)}",
    ]
    return "\n".join(lines + [f"  {line}" for line in tally.lost])


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Kills a tiny training run over and over.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to go on")
    parser.add_argument("--runs", type=int, default=0, help="end after so many runs; 0: by time")
    parser.add_argument("--kills", type=int, default=8, help="kills in each run")
    parser.add_argument("--steps", type=int, default=40, help="steps of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and damages")
    parser.add_argument("--dir", help="directory for the runs; those with losses stay in it")
    options = parser.parse_args()

    root = pathlib.Path(options.dir or tempfile.mkdtemp(prefix="soak_"))
    root.mkdir(parents=True, exist_ok=True)
    rng, tally, started = random.Random(options.seed), Tally(), time.monotonic()
    runs, reference = Runs(root, options.steps, tally), root / "reference"
    code = 0
    try:
        runs.finish(reference)
        while not options.runs or tally.runs < options.runs:
            if time.monotonic() - started > 60 * options.minutes:
                break
            soak_once(runs, rng, reference=reference, kills=options.kills)
    except soak_chaos.RunFailedError as error:
        print(error, file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    print(report(tally, time.monotonic() - started))
    if tally.lost or code == 1:
        print(f"Left for a closer look: {root}")
        return 1
    if options.dir is None:
        shutil.rmtree(root)
    return code


if __name__ == "__main__":
    sys.exit(main())

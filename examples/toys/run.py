"""Trains each toy and prints one line for it; the exit code is 1 if one is below its threshold.

Run by `make toys`. Thresholds are for the default number of steps.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from examples.toys import convnet, ctc, recall

TOYS = {"convnet": convnet, "ctc": ctc, "recall": recall}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the toys; returns the exit code."""
    parser = argparse.ArgumentParser(description="Trains small networks on small tasks.")
    parser.add_argument("--only", nargs="+", choices=list(TOYS), default=list(TOYS))
    parser.add_argument("--steps", type=int, default=None, help="instead of each toy's own number")
    options = parser.parse_args(arguments)
    all_reached = True
    for name in options.only:
        toy, start = TOYS[name], time.perf_counter()
        value = toy.reach(options.steps or toy.STEPS)
        seconds = time.perf_counter() - start
        reached = value >= toy.THRESHOLD
        verdict = "at least" if reached else "BELOW"
        print(
            f"{name}: {toy.TASK} {value:.3f}, {verdict} {toy.THRESHOLD}, in {seconds:.0f} seconds",
            flush=True,
        )
        all_reached = all_reached and reached
    return 0 if all_reached else 1


if __name__ == "__main__":
    sys.exit(main())

"""Kills a run at random moments, damages its checkpoints, and compares what came out of it."""

import collections
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable

from benchmarks import soak_run
from paxml.summary.events import read_events, read_scalars

_POLL_SECS = 0.001
# A run that takes longer for the steps until its next kill is an error, in seconds.
_PATIENCE_SECS = 120.0


class RunFailedError(RuntimeError):
    """A run ended otherwise than it should."""


@dataclasses.dataclass
class Tally:
    """What was done, and what came out of it.

    Attributes:
      runs: Runs from an empty directory to the last step.
      starts: Processes.
      kills: Number of SIGKILLs by the phase in which they came.
      terminations: Number of SIGTERMs.
      damages: Damaged checkpoints by kind.
      skipped: Warnings of runs that skip a checkpoint.
      steps: Steps that the runs should have done once.
      lost: Descriptions of steps or files that differ from those of a run that was let alone.
    """

    runs: int = 0
    starts: int = 0
    kills: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    terminations: int = 0
    damages: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    skipped: int = 0
    steps: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)


class Runs:
    """Starts runs, each in a process forked from this one, which must not have used JAX yet."""

    def __init__(self, root: pathlib.Path, steps: int, tally: Tally) -> None:
        """Takes the directory for all runs, and their number of steps."""
        self.root, self.steps, self.tally = root, steps, tally
        self.marks = soak_run.Marks()

    def start(self, directory: pathlib.Path) -> int:
        """Starts or resumes the run of a directory; returns the process id."""
        self.marks.set("start", 0)
        self.tally.starts += 1
        if (pid := os.fork()) == 0:
            code = 1
            try:
                code = soak_run.run(self.marks, directory, self.root / "cache", self.steps)
            finally:
                os._exit(code)
        return pid

    def finish(self, directory: pathlib.Path) -> None:
        """Runs to the end.

        Raises:
          RunFailedError: if it does not end well.
        """
        self._expect(self.wait(self.start(directory)), 0, directory)

    def kill_when(self, directory: pathlib.Path, due: Callable[[], bool], kind: int) -> bool:
        """Runs until a moment, then sends a signal; False if the run ended before it.

        Raises:
          RunFailedError: if it ends badly by itself, or hangs.
        """
        pid = self.start(directory)
        deadline = time.monotonic() + _PATIENCE_SECS
        while not due():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._expect(os.waitstatus_to_exitcode(status), 0, directory)
                return False
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise RunFailedError(
                    f"A run made no progress for {_PATIENCE_SECS:g} s: {directory}"
                )
            time.sleep(_POLL_SECS)
        phase, _ = self.marks.get()
        os.kill(pid, kind)
        code = self.wait(pid)
        if kind == signal.SIGTERM:
            # Before its first step it is ended by the signal, at its end it is too late for it.
            if code not in (128 + kind, -kind, 0):
                self._expect(code, 128 + kind, directory)
            self.tally.terminations += 1
        elif code == -kind:
            saving = any(directory.glob("checkpoints/*orbax-checkpoint-tmp*"))
            self.tally.kills["save" if saving else phase] += 1
        else:
            self._expect(code, 0, directory)
        return True

    def wait(self, pid: int) -> int:
        """Exit code of a process, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _expect(self, code: int, wanted: int, directory: pathlib.Path) -> None:
        if code != wanted:
            log = directory.with_suffix(".log").read_text(errors="replace")
            raise RunFailedError(
                f"The run of {directory} ended with {code}, expected {wanted}. Its last words:\n"
                + log[-3000:]
            )


def random_moment(runs: Runs, rng: random.Random, *, first: int, last: int) -> Callable[[], bool]:
    """A moment to kill a run: while it starts, or a random time after it reached a step.

    Args:
      runs: Whose marks are looked at.
      rng: Chooses.
      first: The run resumes about here.
      last: At this step the moment has come at the latest, so that enough is left for more.
    """
    at_start = rng.random() < 0.15
    step = -1 if at_start else rng.randint(first, last)
    # Steps are quick, saves and evaluations take longer.
    span = 1.5 if at_start else rng.choice([0.02, 0.3])
    wait = rng.uniform(0.0, span)
    since = time.monotonic() if at_start else None

    def due() -> bool:
        nonlocal since
        phase, now = runs.marks.get()
        if phase != "start" and now >= last:
            return True
        if since is None and phase != "start" and now >= step:
            since = time.monotonic()
        return since is not None and time.monotonic() - since > wait

    return due


def checkpoints_of(directory: pathlib.Path) -> list[pathlib.Path]:
    """Checkpoints with a final name, the oldest first."""
    names = directory.glob("checkpoints/checkpoint_*")
    return sorted(path for path in names if path.name.removeprefix("checkpoint_").isdigit())


def step_of(directory: pathlib.Path) -> int:
    """Step of the newest checkpoint, 0 if there is none."""
    found = checkpoints_of(directory)
    return int(found[-1].name.removeprefix("checkpoint_")) if found else 0


def damage(checkpoint: pathlib.Path, rng: random.Random) -> str:
    """Damages a checkpoint in one of the ways of disks and people; returns which."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    data = [path for path in files if path.name[0].isdigit() or path.name.startswith("process_")]
    target = rng.choice(data)
    kind = rng.choice(["flipped bit", "cut off", "file missing", "item missing", "empty"])
    if kind == "flipped bit":
        content = bytearray(target.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        target.write_bytes(content)
    elif kind == "cut off":
        target.write_bytes(target.read_bytes()[: rng.randrange(target.stat().st_size)])
    elif kind == "file missing":
        target.unlink()
    elif kind == "item missing":
        shutil.rmtree(checkpoint / rng.choice(["state", "metadata"]))
    else:
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
    return kind


def differences(
    directory: pathlib.Path, reference: pathlib.Path, *, steps: int, damaged: set[str]
) -> list[str]:
    """What a finished run has otherwise than one that was let alone; empty if all is the same.

    Compared are the loss of every step, also of steps that were done twice, the losses of the
    evaluations, the steps of the checkpoints and the bytes of the last one. Of damaged checkpoints,
    which may still lie there, the names are given.
    """
    found = _of_losses(_losses(directory), _losses(reference), steps)
    for part in ("eval_train", "eval_test_test"):
        got, want = (read_scalars(d / "summaries" / part, "loss") for d in (directory, reference))
        found += [
            f"{part} of step {step}: {got.get(step)}, expected {value}"
            for step, value in want.items()
            if got.get(step) != value
        ]
    names, expected = ([p.name for p in checkpoints_of(d)] for d in (directory, reference))
    left = [name for name in names if name in expected or name not in damaged]
    if left != expected:
        found.append(f"checkpoints {names}, expected {expected}")
    got_bytes, want_bytes = _arrays(directory), _arrays(reference)
    found += [
        f"array {name} of the last checkpoint"
        for name in sorted(want_bytes)
        if got_bytes.get(name) != want_bytes[name]
    ]
    return found


def _of_losses(got: dict[int, set[float]], want: dict[int, set[float]], steps: int) -> list[str]:
    return [
        f"loss of step {step}: {sorted(got.get(step, ()))}, expected {sorted(want[step])}"
        for step in range(1, steps + 1)
        if got.get(step) != want[step]
    ]


def _losses(directory: pathlib.Path) -> dict[int, set[float]]:
    """All values that the loss of a step ever had."""
    values: dict[int, set[float]] = {}
    for path in sorted((directory / "summaries" / "train").glob("*.tfevents.*")):
        for event in read_events(path):
            for value in event.summary.value:
                if value.tag == "loss":
                    values.setdefault(event.step, set()).add(value.simple_value)
    return values


def _arrays(directory: pathlib.Path) -> dict[str, bytes]:
    root = checkpoints_of(directory)[-1]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and (path.name[0].isdigit() or path.name.startswith("process_"))
    }

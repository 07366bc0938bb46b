"""The steps of a directory of checkpoints that can be restored."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from etils import epath
from orbax import checkpoint as ocp

from paxml.checkpoint.health import array_problem, structure_problem
from paxml.checkpoint.paths import PaxStepNameFormat

_SET_ASIDE = ".unreadable"


class UnreadableCheckpointError(ValueError):
    """A checkpoint with a final name is incomplete or damaged."""


@dataclass(frozen=True)
class ReadableSteps(PaxStepNameFormat):
    """Names checkpoints, and hides from Orbax those that cannot be restored.

    Hidden ones do not count as saved, are not deleted and are not written over.

    Attributes:
      problems: What is wrong, by path, for the hidden checkpoints found so far.
      warned: Paths of those that a warning was given for.
    """

    problems: dict[str, str] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    def find_all(self, base_path: epath.PathLike) -> Iterator[ocp.path.step.Metadata]:
        for metadata in super().find_all(base_path):
            path = os.fspath(metadata.path)
            if path not in self.problems and (problem := structure_problem(metadata.path)):
                self.problems[path] = problem
            if path not in self.problems:
                yield metadata

    def good_steps(self, base_path: epath.PathLike) -> list[int]:
        """Returns the steps that are not hidden, in order."""
        return sorted({metadata.step for metadata in self.find_all(base_path)})

    def hidden(self, base_path: epath.PathLike) -> dict[int, epath.Path]:
        """Returns the paths of the hidden checkpoints by step."""
        good = {metadata.path for metadata in self.find_all(base_path)}
        every = PaxStepNameFormat(self.checkpoint_type).find_all(base_path)
        return {m.step: m.path for m in every if m.path not in good}

    def hidden_path(self, base_path: epath.PathLike, step: int) -> epath.Path | None:
        """Returns the path of the checkpoint of a step if it is hidden; looks into no other."""
        found = PaxStepNameFormat(self.checkpoint_type).find_metadata(base_path, step)
        if found is None:
            return None
        path = os.fspath(found.path)
        if path not in self.problems and (problem := structure_problem(found.path)):
            self.problems[path] = problem
        return found.path if path in self.problems else None

    def latest(self, base_path: epath.PathLike) -> int | None:
        """Returns the newest step whose files are all there, or None.

        Warns once for each newer one that is skipped, with the reason.
        """
        while steps := self.good_steps(base_path):
            path = self.find_step(base_path, steps[-1]).path
            problem = array_problem(path)
            if problem is None:
                break
            self.problems[os.fspath(path)] = problem
        newest = steps[-1] if steps else None
        for step, path in sorted(self.hidden(base_path).items()):
            if newest is None or step > newest:
                self._warn_once(path, newest)
        return newest

    def _warn_once(self, path: epath.Path, newest: int | None) -> None:
        name = os.fspath(path)
        if name in self.warned:
            return
        self.warned.add(name)
        instead = "no older one is complete" if newest is None else f"using step {newest}"
        warnings.warn(
            f"Checkpoint {name} is skipped: {self.problems[name]}; {instead}. "
            "Nothing was deleted; remove the directory to silence this.",
            stacklevel=4,
        )

    def unreadable(
        self, base_path: epath.PathLike, path: epath.Path, problem: str
    ) -> UnreadableCheckpointError:
        """Hides a checkpoint and returns the error that says why, and how to go on."""
        self.problems[os.fspath(path)] = problem
        steps = self.good_steps(base_path)
        instead = (
            f"The newest complete checkpoint is {self.find_step(base_path, steps[-1]).path}. To "
            f"resume from there"
            if steps
            else "There is no other complete checkpoint. To start anew"
        )
        return UnreadableCheckpointError(
            f"Checkpoint {path} cannot be read: {problem}. {instead}, run `rm -r {path}` (or move "
            "it away) and start again."
        )


def set_aside(path: epath.Path) -> epath.Path:
    """Renames a damaged checkpoint that is in the way of a new one; returns its new path."""
    target = path.parent / f"{path.name}{_SET_ASIDE}"
    count = 1
    while target.exists():
        count += 1
        target = path.parent / f"{path.name}.{count}{_SET_ASIDE}"
    return path.rename(target)

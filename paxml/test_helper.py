"""Helpers for tests of experiments: a short real run, and what it wrote."""

import math
import os
from pathlib import Path
from typing import NamedTuple

from paxml.experiment.base import BaseExperiment
from paxml.launch.train import train_and_evaluate
from paxml.summary.events import read_scalars


class ShortRun(NamedTuple):
    """What `short_run` returns.

    Attributes:
      first_loss: Loss of the first training step.
      losses: Loss by step, by the name of its folder below `summaries`: `train`, `eval_train`,
        `eval_test_<name>`.
      checkpoints: Steps whose checkpoint was written.
    """

    first_loss: float
    losses: dict[str, dict[int, float]]
    checkpoints: list[int]


def short_run(
    experiment: BaseExperiment, job_log_dir: str | os.PathLike[str], num_steps: int = 2
) -> ShortRun:
    """Trains an experiment for some steps, evaluates it and writes what a long run would.

    The experiment is that of the long run but for the number of steps, so a test with it catches
    most errors of configs: wrong sizes, missing data, a loss that is not finite.

    Args:
      experiment: The experiment; override its sizes in a subclass when it is large.
      job_log_dir: An empty folder, such as pytest's `tmp_path`.
      num_steps: Steps to train.

    Raises:
      AssertionError: if a loss is NaN or infinite, with the place and the step.
    """
    first: list[float] = []
    train_and_evaluate(
        experiment,
        job_log_dir,
        eval_on_test=True,
        override_num_train_steps=num_steps,
        train_first_result_callback_fn=lambda loss: first.append(float(loss)),
    )
    folder = Path(job_log_dir)
    losses = {
        path.name: read_scalars(path, "loss") for path in sorted((folder / "summaries").iterdir())
    }
    for place, by_step in {"the first step": {1: first[0]}, **losses}.items():
        for step, loss in by_step.items():
            if not math.isfinite(loss):
                raise AssertionError(f"{experiment!r}: the loss is {loss} in {place}, step {step}.")
    names = [path.name for path in (folder / "checkpoints").glob("checkpoint_*")]
    steps = sorted(int(name.removeprefix("checkpoint_")) for name in names)
    return ShortRun(first[0], losses, steps)

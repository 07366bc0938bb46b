"""What an early-stopping function is told."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from paxml.task.settings import Train
from paxml.trainer.types import RunningMode

EarlyStoppingFn = Callable[[dict[str, float], RunningMode, int, bool, Any], bool]


def choose(task: Any, given: EarlyStoppingFn | None) -> EarlyStoppingFn | None:
    """The function of the task, or that of the caller.

    Raises:
      ValueError: if there are both.
    """
    if given is not None and task.early_stopping_fn is not None:
        raise ValueError(
            f"Task {task.name!r} has an early_stopping_fn, and another was passed to "
            "train_and_evaluate. Keep one of them."
        )
    return given or task.early_stopping_fn


def prefixed(prefix: str, metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Metrics as floats under a prefix; this waits for the device."""
    values = jax.device_get(dict(metrics or {}))
    return {f"{prefix}/{key}": float(np.mean(value)) for key, value in values.items()}


def always_reads_train_metrics() -> bool:
    """Whether the user wants the metrics of every training step, which waits for each."""
    name = "PAXML_EARLY_STOP_ALWAYS_AGGREGATE_TRAIN_METRICS"
    return os.environ.get(name, "").lower() in ("1", "true")


def is_last_checkpoint(train: Train, step: int, mode: RunningMode) -> bool:
    """Whether no more than the final checkpoint follows, or no evaluation after this one."""
    remaining = int(train.num_train_steps) - step
    if remaining <= 0:
        return True
    last_eval = mode.has_eval and remaining < train.eval_interval_steps
    last_decode = mode.has_decode and remaining < (train.decode_interval_steps or 0)
    return last_eval or last_decode

"""What all programs share."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from paxml.task.ema import extract_ema
from paxml.task.exclusion import has_ema
from paxml.train_states import TrainState


@dataclasses.dataclass
class ProgramOutput:
    """Result of one run of a program.

    Attributes:
      state: The train state afterwards.
    """

    state: TrainState


@dataclasses.dataclass
class TrainProgramOutput(ProgramOutput):
    """Result of one run of a training program.

    Attributes:
      loss: Mean loss of the last step, on the device.
      weighted_scalars: Metrics of the last step as (value, weight), on the device.
      new_train_step: Number of updates applied so far.
      steps_per_sec: Training speed; 0 in the runs in which it was not measured.
      eval_train_metrics: Metrics of the next training batch in evaluation mode, where they were
        computed.
    """

    loss: Any
    weighted_scalars: Any
    new_train_step: int
    steps_per_sec: float
    eval_train_metrics: Mapping[str, Any] | None


@dataclasses.dataclass
class EvalProgramOutput(ProgramOutput):
    """Result of one run of an evaluation program.

    Attributes:
      eval_metrics: Averaged metrics by name.
      eval_scoring_metrics: Metrics that the input computed from the outputs.
      num_eval_steps: Number of batches.
    """

    eval_metrics: Mapping[str, float] | None = None
    eval_scoring_metrics: Mapping[str, float] | None = None
    num_eval_steps: int = 0


class Program(abc.ABC):
    """A loop body: `setup` once, then `run` whenever `should_run`, then `shutdown`."""

    @abc.abstractmethod
    def should_run(self, state: TrainState, step: int) -> bool:
        """Whether there is anything to do at this step."""

    @abc.abstractmethod
    def run(self, state: TrainState, step: int) -> ProgramOutput:
        """Does it."""

    @abc.abstractmethod
    def shutdown(self) -> None:
        """Finishes files and threads."""


def get_summary_base_dir(job_log_dir: epath.PathLike) -> epath.Path:
    """Where the event files of a run are."""
    return epath.Path(job_log_dir) / "summaries"


def get_eval_train_state(task: Any, state: TrainState, use_ema: bool) -> TrainState:
    """The part of the state that evaluation reads: the weights, or their moving average.

    Raises:
      ValueError: if the average is asked for and the learner keeps none.
    """
    if not use_ema:
        return state.to_eval_state()
    if not has_ema(task):
        raise ValueError(
            f"Task {task.name!r}: train.eval_use_ema_states or train.decode_use_ema_states is "
            "True, but the learner keeps no moving average of the weights. Set "
            "train.learner.optimizer.ema_decay, e.g. to 0.9999, or leave both settings False."
        )
    return extract_ema(state)

"""All evaluation, or all decoding, of one state."""

import time
from collections.abc import Sequence
from typing import Any

from paxml.program.early_stop import prefixed
from paxml.program.evaluate import BaseEvalProgram
from paxml.train_states import TrainState


def run_eval_programs(
    *, eval_programs: Sequence[BaseEvalProgram], train_state: TrainState, step: int
) -> dict[str, float]:
    """Runs evaluation programs one after the other.

    Args:
      eval_programs: Programs that are set up.
      train_state: State without an optimizer part.
      step: Step of its weights.

    Returns:
      By full name, the metrics of each input and `eval_steps_per_sec`; empty without programs.
    """
    started, batches = time.monotonic(), 0
    values: dict[str, float] = {}
    for program in eval_programs:
        output = program.run(train_state, step)
        batches += output.num_eval_steps
        name = f"eval_test_{program.eval_input.name}"
        values |= prefixed(f"{name}/metrics", output.eval_metrics)
        values |= prefixed(f"{name}/scoring_eval", output.eval_scoring_metrics)
    return values | _speed("eval_steps_per_sec", batches, started)


def run_decode_programs(
    *, decode_programs: Sequence[Any], train_state: TrainState, step: int
) -> dict[str, float]:
    """Runs decoding programs one after the other.

    Args:
      decode_programs: Programs that are set up.
      train_state: State without an optimizer part.
      step: Step of its weights.

    Returns:
      By full name, the metrics of each input and `decode_steps_per_sec`; empty without programs. Of
      two metrics with one name, that of the model's `decode` is given.
    """
    started, batches = time.monotonic(), 0
    values: dict[str, float] = {}
    for program in decode_programs:
        output = program.run(train_state, step)
        batches += output.num_decode_steps
        name = f"decode_test_{program.decode_input.name}"
        for metrics in (
            output.seqio_metrics,
            output.processed_decode_metrics,
            output.decode_metrics,
        ):
            values |= prefixed(name, metrics)
    return values | _speed("decode_steps_per_sec", batches, started)


def _speed(name: str, batches: int, started: float) -> dict[str, float]:
    elapsed = max(time.monotonic() - started, 1e-9)
    return {name: batches / elapsed} if batches else {}

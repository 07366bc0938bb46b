"""Ctrl-C and termination: finish the step, save, leave."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CODE_ON_DEMAND = 1


class TrainingStopped(SystemExit):
    """Training was stopped by a signal, after a checkpoint.

    The exit code is 128 plus the number of the signal, 130 for Ctrl-C and 143 for termination; 1
    for termination with `exit_after_ondemand_checkpoint`.

    Attributes:
      step: Step of the last checkpoint.
    """

    def __init__(self, code: int, step: int) -> None:
        super().__init__(code)
        self.step = step


class InputExhaustedError(RuntimeError):
    """The training input ended before `num_train_steps`.

    The last state is saved, unless saving is off.
    """


class StopRequest:
    """Notes a signal while training runs; a second one acts at once, as usual.

    Nothing is noted outside the main thread, where Python delivers no signals. With several
    processes `jax.distributed` has its own handler of SIGTERM, which makes all of them stop at the
    same step; SIGINT is handed to it.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread:
            kinds = SIGNALS if jax.process_count() == 1 else (signal.SIGINT,)
            self._previous = {kind: signal.signal(kind, self._note) for kind in kinds}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._give_back()

    def reached(self, step: int) -> bool:
        """Whether to stop before training on; all processes get the same answer."""
        if jax.process_count() == 1:
            return self.signal is not None
        return multihost_utils.reached_preemption_sync_point(step)

    def exit_code(self, exit_after_ondemand_checkpoint: bool) -> int:
        """Code of a process that stops because of this signal."""
        kind = self.signal or signal.SIGTERM
        if exit_after_ondemand_checkpoint and kind == signal.SIGTERM:
            return EXIT_CODE_ON_DEMAND
        return 128 + kind

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        logging.warning(
            "Got %s: finishing the current step, then saving. Once more stops at once.",
            self.signal.name,
        )
        self._give_back()
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def _give_back(self) -> None:
        for kind, handler in self._previous.items():
            signal.signal(kind, handler)
        self._previous = {}

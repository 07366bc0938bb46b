"""Programs that a run with evaluation and decoding compiles, counted by JAX's own log.

A language model trains, and is evaluated and decoded twice. There are four programs that hold the
model: the initial weights, and the steps of training, evaluation and decoding. All else are single
operations on small arrays. After the first round nothing may be compiled.
"""

import collections
import logging
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import frame, language_model, train_step
from benchmarks.frame import OURS, Row, Settings
from benchmarks.language_model import Sizes
from paxml import base_experiment, tasks_lib, train
from praxis import base_input, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import models

SIZES = Sizes(layers=2, width=32, vocabulary=64, batch=4, length=16)
# Initial weights, and the steps of training, evaluation and decoding.
LARGE = 4
# Where JAX says what it compiles, and how long it took.
LOGGERS = [
    logging.getLogger(f"jax._src.{name}")
    for name in ("interpreters.pxla", "dispatch", "compiler", "compilation_cache")
]
ROUND = 4


def measure(settings: Settings) -> Iterator[Row]:
    del settings  # it is short enough
    counter = Counter()
    with counter, tempfile.TemporaryDirectory() as directory:
        train.train_and_evaluate(
            Experiment(),
            directory,
            eval_on_test=True,
            run_decode=True,
            early_stopping_fn=counter.after_step,
        )
    late = counter.compiled[counter.after_first_round :]
    yield _row("compiled after the first round", len(late), 0, _names(late))
    large = [key for key in counter.compiled if _is_large(key)]
    yield _row("programs that hold the model", len(large), LARGE, _names(large))
    small = [key for key in counter.compiled if not _is_large(key)]
    yield _row("small operations", len(small), None, _names(small))


class Counter(logging.Handler):
    """Notes what JAX says that it compiles, between enter and exit."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.compiled: list[tuple[str, str]] = []
        self.after_first_round = 0

    def emit(self, record: logging.LogRecord) -> None:
        match = re.match(r"Compiling (\S+) with global shapes and types (.*)", record.getMessage())
        if match:
            self.compiled.append((match[1], match[2]))

    def after_step(self, metrics: Any, mode: Any, step: int, last: bool, directory: Any) -> bool:
        """Called by the run after each step, with its evaluation and decoding."""
        del metrics, mode, last, directory
        if step <= ROUND + 1:  # evaluation of the round is after its last step
            self.after_first_round = len(self.compiled)
        return False

    def __enter__(self) -> "Counter":
        jax.clear_caches()
        jax.config.update("jax_log_compiles", True)
        for logger in LOGGERS:
            logger.addHandler(self)
            logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        jax.config.update("jax_log_compiles", False)
        for logger in LOGGERS:
            logger.removeHandler(self)
            logger.propagate = True


def _is_large(key: tuple[str, str]) -> bool:
    """Whether a program gets all the weights, or makes them."""
    return key[1].count("ShapedArray") > 10 or "init" in key[0]


def _names(keys: Any) -> str:
    counts = collections.Counter(name for name, _ in keys)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())


def _row(case: str, number: int, bound: int | None, note: str) -> Row:
    limit = None if bound is None else frame.at_most(bound)
    return Row(case, {OURS: number}, "", judged=number, judged_unit="", limit=limit, note=note)


# ---- the run ------------------------------------------------------------------------------------


class Tokens(base_input.NumpyInput):
    """Random tokens."""

    def load(self) -> dict[str, Any]:
        rows = language_model.batch_of(language_model.tokens(SIZES))
        return {name: np.asarray(array) for name, array in rows.items()}


class Silent(models.LanguageModel):
    """Its tokens are no text."""

    def process_decode_out(self, input_obj: Any, decode_out: Any) -> Any:
        return py_utils.NestedMap(rows=(np.float32(len(decode_out.ids)), np.float32(1))), [], {}


class Experiment(base_experiment.BaseExperiment):
    """The run."""

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        return [
            pax_fiddle.Config(Tokens, name="train", is_training=True, batch_size=SIZES.batch),
            self._once("test"),
        ]

    def decode_datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        return [self._once("decoded")]

    def _once(self, name: str) -> pax_fiddle.Config[base_input.BaseInput]:
        return pax_fiddle.Config(
            Tokens,
            name=name,
            batch_size=SIZES.batch,
            reset_for_eval=True,
            eval_loop_num_batches=-1,
        )

    def task(self) -> pax_fiddle.Config[tasks_lib.SingleTask]:
        task = train_step.task_config(SIZES)
        task.model = pax_fiddle.Config(Silent, name="model", lm_tpl=task.model.lm_tpl)
        task.model.decoder_tpl = decoder_hparams.GreedyDecoderHParams(
            seqlen=SIZES.length + 4, max_decode_steps=4, fprop_for_prefix=True
        )
        task.train.set(
            num_train_steps=2 * ROUND,
            eval_interval_steps=ROUND,
            decode_interval_steps=ROUND,
            summary_interval_steps=ROUND,
            save_interval_steps=ROUND,
        )
        return task

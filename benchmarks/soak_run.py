"""The run that the soak test kills: tiny, but with all the state that a run can have."""

import mmap
import os
import pathlib
import struct
import sys
import traceback
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from paxml import base_experiment, learners, programs, tasks_lib, train
from praxis import (
    base_input,
    base_layer,
    base_model,
    optimizers,
    pax_fiddle,
    py_utils,
    schedules,
)
from praxis.layers import stochastics

FEATURES = 5
BATCH = 8
EXAMPLES = 97

# Phases of a run, as marked in memory that it shares with whoever kills it.
PHASES = ("start", "step", "between steps", "evaluation", "end")


class Marks:
    """Phase and step of a run, seen by the process that started it."""

    def __init__(self) -> None:
        """Makes the shared memory; processes forked later see it."""
        self._memory = mmap.mmap(-1, 16)

    def set(self, phase: str, step: int) -> None:
        """Says what the run is about to do, after how many steps."""
        self._memory[:16] = struct.pack("<qq", PHASES.index(phase), step)

    def get(self) -> tuple[str, int]:
        """Phase and step."""
        phase, step = struct.unpack("<qq", self._memory[:16])
        return PHASES[phase], step


class Shuffled(base_input.GrainInput):
    """Examples in an order that changes from epoch to epoch; an epoch ends within a batch."""

    def make_dataset(self) -> grain.MapDataset:
        examples = grain.MapDataset.range(EXAMPLES).seed(3).shuffle().repeat()
        return examples.map(_example).batch(BATCH)


def _example(index: int) -> dict[str, Any]:
    x = np.random.default_rng(index).standard_normal(FEATURES).astype(np.float32)
    return {"x": x, "y": np.float32(x.sum())}


def _noise(instance: base_input.IterableInput) -> list[dict[str, np.ndarray]]:
    """An epoch of seven batches."""
    rng = np.random.default_rng(11)
    shape = (instance.batch_size or 0, FEATURES)
    return [{"noise": rng.standard_normal(shape).astype(np.float32)} for _ in range(7)]


def _held_out(instance: base_input.IterableInput) -> list[dict[str, Any]]:
    """Two batches as the training input gives them."""
    del instance
    rng = np.random.default_rng(12)

    def batch() -> dict[str, Any]:
        x = rng.standard_normal((BATCH, 1, FEATURES)).astype(np.float32)
        return {"shuffled": {"x": x, "y": x.sum(-1)}, "counted": {"noise": np.zeros_like(x)}}

    return [batch(), batch()]


class Regression(base_model.BaseModel):
    """Two layers with dropout between them, and a running mean of the input."""

    def setup(self) -> None:
        weight, gaussian = base_layer.WeightHParams, base_layer.WeightInit.Gaussian(0.3)
        self.create_variable("inner", weight([FEATURES, 11], init=gaussian))
        self.create_variable("outer", weight([11], init=gaussian))
        self.create_variable(
            "mean",
            weight(
                [FEATURES],
                init=base_layer.WeightInit.Constant(0.0),
                collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            ),
            trainable=False,
        )
        self.create_child("dropout", pax_fiddle.Config(stochastics.Dropout, keep_prob=0.5))

    def compute_predictions(self, input_batch: py_utils.NestedMap) -> jax.Array:
        x = input_batch.shuffled.x + 0.1 * input_batch.counted.noise  # [B, 1, FEATURES]
        mean = self.get_var("mean")
        if not self.do_eval:
            self.update_var("mean", 0.9 * mean + 0.1 * jnp.mean(x, (0, 1)))
        hidden = jnp.tanh((x - mean[None, None]) @ self.theta.inner)
        return self.dropout(hidden) @ self.theta.outer

    def compute_loss(
        self, predictions: jax.Array, input_batch: py_utils.NestedMap
    ) -> tuple[py_utils.NestedMap, dict[str, jax.Array]]:
        error = jnp.square(predictions - input_batch.shuffled.y)
        return py_utils.NestedMap(loss=(jnp.mean(error), jnp.float32(BATCH))), {"error": error}


class MarkedTraining(programs.SingleTaskTrainProgram):
    """Marks its steps."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def run(self, state, step):
        self._marks.set("step", step)
        output = super().run(state, step)
        self._marks.set("between steps", output.new_train_step)
        return output


class MarkedEvaluation(programs.SingleTaskEvalProgram):
    """Marks its runs."""

    marks: Marks

    def run(self, state, step):
        self.marks.set("evaluation", step)
        output = super().run(state, step)
        self.marks.set("between steps", step)
        return output


class Soak(base_experiment.BaseExperiment):
    """Dropout, a moving average of the weights, several inputs, one of them shuffled."""

    def __init__(self, marks: Marks, steps: int) -> None:
        self._marks, self._steps = marks, steps

    def datasets(self):
        make = pax_fiddle.Config
        counted = make(
            base_input.IterableInput, batch_size=BATCH, make_iterator=_noise, num_epochs=None
        )
        return [
            make(
                base_input.MultiInput,
                name="train",
                is_training=True,
                input_to_params={"shuffled": make(Shuffled, batch_size=BATCH), "counted": counted},
            ),
            make(
                base_input.IterableInput,
                name="test",
                batch_size=BATCH,
                make_iterator=_held_out,
                reset_for_eval=True,
            ),
        ]

    def train_programs(self):
        return [MarkedTraining(self._marks)]

    def eval_programs(self):
        made = [MarkedEvaluation(dataset) for dataset in self.eval_datasets()]
        for program in made:
            program.marks = self._marks
        return made

    def task(self):
        task = pax_fiddle.Config(tasks_lib.SingleTask, name="soak")
        task.model = pax_fiddle.Config(Regression, name="regression")
        task.train.learner = pax_fiddle.Config(
            learners.Learner,
            loss_name="loss",
            optimizer=pax_fiddle.Config(
                optimizers.Adam,
                learning_rate=0.01,
                ema_decay=0.9,
                lr_schedule=pax_fiddle.Config(schedules.Constant, value=1.0),
            ),
        )
        task.train.enable_input_checkpointing = True
        task.train.num_train_steps = self._steps
        task.train.save_interval_steps = 3
        task.train.save_max_to_keep = 3
        task.train.save_keep_interval_duration = ""
        task.train.eval_interval_steps = 4
        task.train.summary_interval_steps = 1
        return task


def run(marks: Marks, directory: pathlib.Path, cache: pathlib.Path, steps: int) -> int:
    """Trains in this process, which was forked for it; returns its exit code.

    Args:
      marks: Where the run says what it does.
      directory: Of the run.
      cache: Of compiled programs, shared by all runs.
      steps: Number of steps. Arrays are written in the background in every other start.
    """
    log = os.open(directory.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stderr.fileno())
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    try:
        train.train_and_evaluate(
            Soak(marks, steps),
            directory,
            eval_on_test=True,
            enable_async_checkpointing=os.getpid() % 2 == 0,
        )
        marks.set("end", steps)
        return 0
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1

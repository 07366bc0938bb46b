"""What goes wrong while a run trains (behaviours 37, 38, 40-43, 45, 61 for the trainer)."""

import os
import pathlib
import re
import shutil
import stat
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import programs, train
from paxml.checkpoint.manager import CheckpointSaveError
from paxml.program.anomaly import UnusableStepsError
from paxml.summary.events import read_scalars
from praxis import base_layer, pax_fiddle

NOBODY = 65534

# When a write fails, Orbax leaves tasks behind in an event loop that is closed.
orbax_leftovers = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*:ResourceWarning"
)


class EveryStep(toy_experiment.Toy):
    """Summaries of every step, and no evaluation."""

    SUMMARY = 1
    EVAL = 0


class BeforeStep(programs.SingleTaskTrainProgram):
    """Calls a function before a step."""

    def __init__(self, step, call):
        super().__init__()
        self._step, self._call = step, call

    def update_state(self, state, step):
        if step == self._step:
            self._call()
        return state


def with_call(step, call, **settings):
    class Called(EveryStep):
        def train_programs(self):
            return [BeforeStep(step, call)]

    return type("WithCall", (Called,), settings)()


def losses_of(directory):
    return read_scalars(directory / "summaries" / "train", "loss")


def checkpoints_of(directory):
    return sorted(int(path.name[-8:]) for path in (directory / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    train.train_and_evaluate(EveryStep(), directory, False, False)
    return directory


# ---- saving --------------------------------------------------------------------------------


@pytest.fixture
def small_files():
    """Lets no file grow past 100 bytes, as a full disk would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@orbax_leftovers
def test_a_full_disk_stops_training_and_leaves_what_was_saved(tmp_path, small_files, whole_run):
    """Behaviours 37, 38: after space is there again the run goes on as if nothing had been."""
    with pytest.raises((CheckpointSaveError, OSError), match=re.escape(str(tmp_path))) as error:
        train.train_and_evaluate(with_call(7, small_files), tmp_path, False, False)
    assert "File too large" in str(error.value)
    resource = pytest.importorskip("resource")
    resource.setrlimit(resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1:] * 2)
    assert checkpoints_of(tmp_path) == [0, 4]
    train.train_and_evaluate(EveryStep(), tmp_path, False, False)
    assert losses_of(tmp_path) == losses_of(whole_run)


@pytest.fixture
def open_directory():
    """A directory of a user whose permissions count, which those of root do not."""
    root = pathlib.Path(tempfile.mkdtemp())
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(root, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield root
    if was_root:
        os.seteuid(0)
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(stat.S_IRWXU)
    shutil.rmtree(root)


@orbax_leftovers
@pytest.mark.parametrize("async_save", [True, False])
def test_a_directory_that_becomes_read_only_stops_training(open_directory, async_save):
    """Behaviour 37: the error says where, what is left, and what to look at."""
    checkpoints = open_directory / "checkpoints"
    experiment = with_call(2, lambda: checkpoints.chmod(stat.S_IRUSR | stat.S_IXUSR))
    with pytest.raises(CheckpointSaveError) as error:
        train.train_and_evaluate(
            experiment, open_directory, False, False, enable_async_checkpointing=async_save
        )
    text = str(error.value)
    assert f"Saving step 4 under {checkpoints} failed" in text
    assert "Permission denied" in text
    assert "Complete checkpoints: steps 0. Check free space, quota and permissions" in text
    assert checkpoints_of(open_directory) == [0]
    assert losses_of(open_directory).keys() == {1, 2, 3, 4}


def test_read_only_directories_are_named_before_anything_is_computed(open_directory, monkeypatch):
    """Behaviour 39: the log directory, and that of the checkpoints."""

    def compiles(*args, **kwargs):
        raise AssertionError("The directory is checked first.")

    monkeypatch.setattr(programs.SingleTaskTrainProgram, "train_step", compiles)
    monkeypatch.setattr("paxml.partitioning.jit.initialize_partitioned_model_states", compiles)
    checkpoints = open_directory / "checkpoints"
    checkpoints.mkdir()
    for path in (checkpoints, open_directory):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(ValueError, match=rf"Cannot write to .*'{path}': Permission denied"):
            train.train_and_evaluate(EveryStep(), open_directory, False, False)


def test_summaries_are_in_the_file_before_the_checkpoint(tmp_path):
    """A kill after it must not lose what is not trained again."""
    seen = []

    def look():
        assert checkpoints_of(tmp_path) == [0, 4]
        seen.append(losses_of(tmp_path).keys())

    train.train_and_evaluate(with_call(4, look), tmp_path, False, False)
    assert seen == [{1, 2, 3, 4}]


# ---- numbers -------------------------------------------------------------------------------


class Infinite(toy_experiment.CountingInput):
    """An infinite number in the batches 3 to 5, counted from 1."""

    def get_next(self):
        batch = super().get_next()
        if 3 <= self._taken <= 5:
            batch.y[1] = np.inf
        return batch


def limited(limit, *, skips=True, **settings):
    class Limited(EveryStep):
        def task(self):
            task = super().task()
            task.train.stop_after_skipped_steps = limit
            task.train.learner.enable_skip_step_on_gradient_anomalies = skips
            return task

    return type("Limited", (Limited,), settings)()


def test_skipped_steps_are_counted_and_training_goes_on(tmp_path, caplog):
    """Behaviours 40, 41: under the limit; the count starts anew after a step that is used."""
    train.train_and_evaluate(limited(4, INPUT=Infinite), tmp_path, False, False)
    summaries = tmp_path / "summaries" / "train"
    valid = read_scalars(summaries, "learning/is_valid_step_scalar")
    assert [step for step, value in valid.items() if not value] == [3, 4, 5]
    assert np.isfinite([loss for step, loss in losses_of(tmp_path).items() if step > 5]).all()
    assert "Step 5 was skipped: loss inf. 3 such steps in a row, 3 since the start." in caplog.text
    norms = read_scalars(summaries, "vars/params/w_scalar")
    assert norms[2] == norms[3] == norms[5] != norms[6]


def test_too_many_skipped_steps_stop_training_and_name_the_input(tmp_path):
    """The message names steps, limit, the first numbers that are not finite, and the way out."""
    with pytest.raises(UnusableStepsError) as error:
        train.train_and_evaluate(limited(3, INPUT=Infinite), tmp_path, False, False)
    text = str(error.value)
    assert text.startswith(
        "Task 'toy': the last 3 steps, up to step 5, were skipped, as many as "
        "train.stop_after_skipped_steps = 3 allows; loss inf. First to hold NaN or infinity: "
        "input y (1 of them), "
    )
    assert "stop_after_skipped_steps = 0 to go on regardless" in text
    assert checkpoints_of(tmp_path) == [0, 4]


class Root(base_layer.BaseLayer):
    """The root of numbers that are partly negative."""

    def __call__(self, x):
        return jnp.sqrt(x)


class WithRoot(toy_experiment.Regression):
    def setup(self):
        super().setup()
        self.create_child("root", pax_fiddle.Config(Root))

    def compute_predictions(self, input_batch):
        return super().compute_predictions(input_batch) + self.root(input_batch.y)


@pytest.mark.parametrize("skips", [True, False])
def test_the_layer_is_named_where_the_first_number_is_not_finite(tmp_path, skips):
    """Behaviour 42 for the second case, in which the weights are gone when that is noticed."""
    with pytest.raises(UnusableStepsError) as error:
        train.train_and_evaluate(
            limited(2 if skips else 1, skips=skips, MODEL=WithRoot), tmp_path, False, False
        )
    first = "output of Root 'root' (" if skips else "variable params/b ("
    assert f"First to hold NaN or infinity: {first}" in str(error.value)
    assert checkpoints_of(tmp_path) == [0]


# ---- input ---------------------------------------------------------------------------------


class Fails(toy_experiment.CountingInput):
    """Cannot give the batch of step 7, once."""

    broken = True

    def get_next(self):
        if self._taken == 6 and Fails.broken:
            raise OSError("the network is down")
        return super().get_next()


def test_an_input_that_fails_saves_the_state_and_is_named(tmp_path, whole_run, monkeypatch):
    """Its own error comes out, with notes; the next start goes on with that very batch."""
    experiment = toy_experiment.variant(INPUT=Fails, SUMMARY=1, EVAL=0)
    with pytest.raises(OSError, match="the network is down") as error:
        train.train_and_evaluate(experiment, tmp_path, False, False)
    assert error.value.__notes__ == [
        "Raised by training input 'train' (Fails) in place of the batch of step 7.",
        f"The state of step 6 is saved in {tmp_path / 'checkpoints'}: the next start asks for "
        "that batch again.",
    ]
    assert checkpoints_of(tmp_path) == [0, 4, 6]
    monkeypatch.setattr(Fails, "broken", False)
    train.train_and_evaluate(experiment, tmp_path, False, False)
    assert losses_of(tmp_path) == losses_of(whole_run)

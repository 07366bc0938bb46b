"""Stopping and going on (behaviours 14, 20-23, 26, 28, 32, 33, 45)."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy_experiment

from paxml import executors, partitioning, programs, train
from paxml.summary.events import read_scalars

TESTS = pathlib.Path(toy_experiment.__file__).parent
STEPS = range(1, 11)


class EveryStep(toy_experiment.Toy):
    """Summaries of every step, and a peek at the next batch every second one."""

    SUMMARY = 1
    EVAL = 2


class SignalAt(programs.SingleTaskTrainProgram):
    """Sends a signal to its own process before a step."""

    def __init__(self, step, kind):
        super().__init__()
        self._step, self._kind = step, kind

    def update_state(self, state, step):
        if step == self._step:
            jax.block_until_ready(state)
            os.kill(os.getpid(), self._kind)
        return state


def losses_of(directory):
    return read_scalars(directory / "summaries" / "train", "loss")


def checkpoints_of(directory):
    return sorted(int(path.name[-8:]) for path in (directory / "checkpoints").iterdir())


def weights_of(directory, step=10):
    """The bytes of every array of a checkpoint."""
    root = directory / "checkpoints" / f"checkpoint_{step:08}" / "state"
    return {
        path.relative_to(root): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name[0].isdigit()
    }


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    train.train_and_evaluate(EveryStep(), directory, False, False)
    return directory


def kill_at_6(directory):
    """Runs in a process of its own, which SIGKILL ends before its seventh step."""
    sys.path.insert(0, str(TESTS))

    class Killed(EveryStep):
        def train_programs(self):
            return [SignalAt(6, signal.SIGKILL)]

    train.train_and_evaluate(Killed(), directory, False, False)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(whole_run, tmp_path, caplog):
    code = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(pathlib.Path(__file__).parent)!r}]\n"
        f"import test_resume; test_resume.kill_at_6({str(tmp_path)!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert checkpoints_of(tmp_path) == [0, 4]

    with caplog.at_level("INFO"):
        train.train_and_evaluate(EveryStep(), tmp_path, False, False)
    assert f"Restored step 4 from {tmp_path / 'checkpoints'}" in caplog.text
    resumed, expected = losses_of(tmp_path), losses_of(whole_run)
    assert {step: resumed[step] for step in range(5, 11)} == {
        step: expected[step] for step in range(5, 11)
    }
    weights = weights_of(whole_run)
    assert len(weights) > 5
    assert weights_of(tmp_path) == weights


def test_saving_in_the_background_saves_the_state_of_its_step(whole_run, tmp_path):
    train.train_and_evaluate(EveryStep(), tmp_path, False, False, enable_async_checkpointing=True)
    for step in (4, 8, 10):
        assert weights_of(tmp_path, step) == weights_of(whole_run, step)


def test_evaluation_and_the_number_of_steps_in_flight_change_nothing(whole_run, tmp_path):
    class Other(EveryStep):
        def task(self):
            task = super().task()
            task.train.eval_interval_steps = 0
            task.train.max_inflight_steps = 0
            return task

    train.train_and_evaluate(Other(), tmp_path, False, True)
    assert losses_of(tmp_path) == losses_of(whole_run)
    assert not (tmp_path / "summaries" / "eval_train").exists()
    assert not (tmp_path / "summaries" / "eval_test_test").exists()


@pytest.mark.parametrize(
    ("kind", "on_demand", "code"),
    [
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGTERM, True, 1),
    ],
)
def test_a_signal_finishes_the_step_and_saves(whole_run, tmp_path, caplog, kind, on_demand, code):
    class Stopped(EveryStep):
        def train_programs(self):
            return [SignalAt(2, kind)]

    with pytest.raises(executors.TrainingStopped) as stopped:
        train.train_and_evaluate(
            Stopped(), tmp_path, False, False, exit_after_ondemand_checkpoint=on_demand
        )
    assert (stopped.value.code, stopped.value.step) == (code, 3)
    assert checkpoints_of(tmp_path) == [0, 3]
    assert f"Stopped at step 3 with a checkpoint in {tmp_path / 'checkpoints'}" in caplog.text
    assert signal.getsignal(kind) in (signal.default_int_handler, signal.SIG_DFL)
    if code == 130:
        train.train_and_evaluate(EveryStep(), tmp_path, False, False)
        assert checkpoints_of(tmp_path) == [0, 3, 4, 8, 10]
        assert losses_of(tmp_path) == losses_of(whole_run)
        assert weights_of(tmp_path) == weights_of(whole_run)


def test_an_input_without_position_warns_how_many_batches_come_again(tmp_path, caplog):
    class Stateless(EveryStep):
        INPUT = toy_experiment.StatelessInput
        STEPS = 4
        EVAL = 0

    train.train_and_evaluate(Stateless(), tmp_path, False, False)
    first = losses_of(tmp_path)
    assert sorted(first) == [1, 2, 3, 4]
    with pytest.warns(UserWarning, match="train_input"):
        train.train_and_evaluate(Stateless(), tmp_path, False, False, override_num_train_steps=6)
    assert "its first 4 batches will be trained on again" in caplog.text
    assert sorted(losses_of(tmp_path)) == [1, 2, 3, 4, 5, 6]


def test_an_input_without_position_is_refused_when_one_is_asked_for(tmp_path):
    class Asked(toy_experiment.Toy):
        INPUT = toy_experiment.StatelessInput

        def task(self):
            task = super().task()
            task.train.enable_input_checkpointing = True
            return task

    with pytest.raises(ValueError, match=r"enable_input_checkpointing.*'train'.*no state"):
        train.train_and_evaluate(Asked(), tmp_path, False, False)


def test_data_that_end_early_save_the_last_state_and_say_so(tmp_path):
    experiment = toy_experiment.variant(NUM_BATCHES=7)
    message = r"'train' ended after step 7, before num_train_steps = 10.*step 7 is saved"
    with pytest.raises(executors.InputExhaustedError, match=message):
        train.train_and_evaluate(experiment, tmp_path, False, False)
    assert checkpoints_of(tmp_path) == [0, 4, 7]


def test_a_run_of_eight_devices_goes_on_on_one(whole_run, tmp_path):
    class OneDevice(EveryStep):
        def partitioner(self):
            return partitioning.JitPartitioner(device_mesh=np.array(jax.devices()[:1]))

    assert jax.device_count() == 8
    train.train_and_evaluate(EveryStep(), tmp_path, False, False, override_num_train_steps=4)
    train.train_and_evaluate(OneDevice(), tmp_path, False, False)
    resumed, expected = losses_of(tmp_path), losses_of(whole_run)
    np.testing.assert_allclose(
        [resumed[step] for step in STEPS], [expected[step] for step in STEPS], rtol=1e-5
    )

"""Stopping and going on (behaviours 14, 20-23, 26, 28, 32, 33, 45)."""

import os
import pathlib
import signal

import jax
import numpy as np
import pytest
import toy_experiment

from paxml import executors, partitioning, programs, train
from paxml.checkpoint.compare import CheckpointMismatchError
from paxml.checkpoint.steps import UnreadableCheckpointError
from paxml.summary.events import read_scalars
from praxis import base_layer

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


class OwnFiles(toy_experiment.CountingInput):
    """Writes its position beside the path that it is given, as tf.data does."""

    def save(self, checkpoint_path):
        assert self.input_checkpointing_enabled
        pathlib.Path(f"{checkpoint_path}.index").write_text(str(self._taken))

    def restore(self, checkpoint_path):
        self._taken = int(pathlib.Path(f"{checkpoint_path}.index").read_text())

    def _get_state_internal(self):
        raise NotImplementedError


def test_an_input_that_saves_itself_goes_on_where_it_was(whole_run, tmp_path):
    class Own(EveryStep):
        INPUT = OwnFiles

        def task(self):
            task = super().task()
            task.train.enable_input_checkpointing = True
            return task

    train.train_and_evaluate(Own(), tmp_path, False, False, override_num_train_steps=4)
    train.train_and_evaluate(Own(), tmp_path, False, False)
    assert losses_of(tmp_path) == losses_of(whole_run)
    assert weights_of(tmp_path) == weights_of(whole_run)


class StopsInEval(programs.SingleTaskEvalProgram):
    """Is stopped by a signal on the second batch of the evaluation at step 6."""

    kinds: list[signal.Signals]

    def eval_step(self, state, prng_key, inputs, static_args):
        self.batches = getattr(self, "batches", 0) + 1
        if int(state.step) == 6 and self.batches % 2 == 0:
            for kind in self.kinds:
                os.kill(os.getpid(), kind)
        return super().eval_step(state, prng_key, inputs, static_args)


@pytest.mark.slow
def test_a_run_stopped_in_the_middle_of_an_evaluation_goes_on(whole_run, tmp_path):
    def run(*kinds):
        class Stopped(EveryStep):
            def eval_programs(self):
                made = [StopsInEval(dataset) for dataset in self.eval_datasets()]
                made[0].kinds = list(kinds)
                return made

        train.train_and_evaluate(Stopped(), tmp_path, False, True)

    def evaluated():
        return sorted(read_scalars(tmp_path / "summaries" / "eval_test_test", "loss"))

    with pytest.raises(KeyboardInterrupt):  # at once: the evaluation is lost
        run(signal.SIGINT, signal.SIGINT)
    assert (checkpoints_of(tmp_path), evaluated()) == ([0, 4], [2, 4])
    with pytest.raises(executors.TrainingStopped):  # the evaluation is finished first
        run(signal.SIGTERM)
    assert (checkpoints_of(tmp_path), evaluated()) == ([0, 4, 6], [2, 4, 6])
    run()
    assert evaluated() == [2, 4, 6, 8, 10]
    assert losses_of(tmp_path) == losses_of(whole_run)
    assert weights_of(tmp_path) == weights_of(whole_run)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(whole_run, tmp_path):
    train.train_and_evaluate(EveryStep(), tmp_path, False, False, override_num_train_steps=6)
    damaged = tmp_path / "checkpoints" / "checkpoint_00000006"
    (damaged / "metadata" / "metadata").write_text("{")
    with pytest.warns(UserWarning, match=f"{damaged} is skipped: .*; using step 4"):
        train.train_and_evaluate(EveryStep(), tmp_path, False, False)
    assert checkpoints_of(tmp_path) == [0, 4, 6, 8, 10]
    assert losses_of(tmp_path) == losses_of(whole_run)


def test_training_does_not_start_over_beside_damaged_checkpoints(tmp_path):
    train.train_and_evaluate(EveryStep(), tmp_path, False, False, override_num_train_steps=0)
    only = tmp_path / "checkpoints" / "checkpoint_00000000"
    (only / "metadata" / "metadata").write_text("{")
    with (
        pytest.warns(UserWarning, match="is skipped"),
        pytest.raises(UnreadableCheckpointError, match=r"of steps \[0\].*another job_log_dir"),
    ):
        train.train_and_evaluate(EveryStep(), tmp_path, False, False)
    assert (only / "metadata" / "metadata").read_text() == "{"


def test_a_checkpoint_of_another_model_is_refused_by_the_names_of_its_arrays(tmp_path):
    class Wider(toy_experiment.Regression):
        def setup(self):
            super().setup()
            self.create_variable("more", base_layer.WeightHParams([2]))

    train.train_and_evaluate(EveryStep(), tmp_path, False, False, override_num_train_steps=0)
    with pytest.raises(
        CheckpointMismatchError, match=r"(?s)checkpoint_00000000.*params\.more.*\[2\]"
    ):
        train.train_and_evaluate(type("Other", (EveryStep,), {"MODEL": Wider})(), tmp_path)


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


@pytest.mark.slow
def test_arrays_padded_for_a_mesh_go_on_without_it(tmp_path):
    """Behaviour 108: 5 rows, stored as 6 where two devices share them."""

    class Uneven(EveryStep):
        MODEL = toy_experiment.Sharded
        MESH = (1, 4, 2)
        EVAL = 0

    class OneDevice(Uneven):
        MESH = (1, 1, 1)

        def partitioner(self):
            devices = np.array(jax.devices()[:1]).reshape(self.MESH)
            return partitioning.JitPartitioner(device_mesh=devices)

    train.train_and_evaluate(OneDevice(), tmp_path / "one", False, False)
    split = tmp_path / "split"
    train.train_and_evaluate(Uneven(), split, False, False, override_num_train_steps=3)
    assert "15" in (split / "parameters.txt").read_text().split()
    train.train_and_evaluate(OneDevice(), split, False, False, override_num_train_steps=6)
    train.train_and_evaluate(Uneven(), split, False, False)
    got, expected = losses_of(split), losses_of(tmp_path / "one")
    np.testing.assert_allclose(
        [got[step] for step in STEPS], [expected[step] for step in STEPS], rtol=1e-5
    )

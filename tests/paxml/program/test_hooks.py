"""Early stopping, own programs, and errors of evaluation (behaviours 15-19, 46, 47, 58, 61, 94)."""

import dataclasses
import gc

import pytest
import toy_experiment

from paxml import executors, programs, train, trainer_lib
from paxml.summary.events import read_scalars
from praxis import pax_fiddle

RunningMode = trainer_lib.RunningMode


class Sum:
    """A metric object."""

    def merge(self, other):
        return self

    def compute(self):
        return 1.0


def checkpoints_of(directory):
    return sorted(int(path.name[-8:]) for path in (directory / "checkpoints").iterdir())


def test_early_stopping_is_told_what_ran_and_saves_the_last_step(tmp_path):
    calls = {}

    def stop_at_6(metrics, running_mode, global_step, is_last_ckpt, checkpoint_path):
        calls[global_step] = (running_mode, is_last_ckpt, metrics)
        assert checkpoint_path == tmp_path / "checkpoints"
        return global_step == 6

    train.train_and_evaluate(
        toy_experiment.Toy(), tmp_path, False, True, early_stopping_fn=stop_at_6
    )
    assert checkpoints_of(tmp_path) == [0, 4, 6]
    assert list(calls) == [1, 2, 3, 4, 5, 6]
    mode, is_last, metrics = calls[5]
    assert mode == RunningMode.TRAIN | RunningMode.EVAL
    assert not is_last
    assert {
        "train/loss",
        "train/mae",
        "eval_train/metrics/mae",
        "eval_test_test/metrics/mae",
        "train_steps_per_sec",
        "num_params",
    } <= metrics.keys()
    assert metrics["num_params"] == 7
    assert calls[6][0] == RunningMode.TRAIN
    assert "train/loss" not in calls[6][2]


def test_two_early_stopping_functions_are_refused(tmp_path):
    class Both(toy_experiment.Toy):
        def task(self):
            return super().task().set(early_stopping_fn=lambda *args: False)

    with pytest.raises(ValueError, match="'toy' has an early_stopping_fn, and another"):
        train.train_and_evaluate(
            Both(), tmp_path, False, False, early_stopping_fn=lambda *args: False
        )


class TwoSteps(programs.SingleTaskTrainProgram):
    """Trains twice on each batch."""

    def train_step(self, step, state, prng_key, inputs, static_args):
        step, state, _ = super().train_step(step, state, prng_key, inputs, static_args)
        return super().train_step(step, state, prng_key, inputs, static_args)


def test_a_program_may_advance_several_steps(tmp_path):
    class Double(toy_experiment.Toy):
        def train_programs(self):
            return [TwoSteps()]

    seen = []
    train.train_and_evaluate(
        Double(), tmp_path, False, True, train_first_result_callback_fn=seen.append
    )
    assert checkpoints_of(tmp_path) == [0, 4, 8, 10]
    summaries = tmp_path / "summaries"
    assert sorted(read_scalars(summaries / "train", "loss")) == [2, 4, 6, 8, 10]
    assert sorted(read_scalars(summaries / "eval_train", "loss")) == [6, 10]
    assert len(seen) == 1


def test_an_error_in_a_step_closes_files_and_saves_nothing_more(tmp_path):
    class Fails(programs.SingleTaskTrainProgram):
        def train_step(self, step, state, prng_key, inputs, static_args):
            if step == 3:
                raise FloatingPointError("third")
            return super().train_step(step, state, prng_key, inputs, static_args)

    class Failing(toy_experiment.Toy):
        def train_programs(self):
            return [Fails()]

    with pytest.raises(FloatingPointError, match="third"):
        train.train_and_evaluate(Failing(), tmp_path, False, False)
    assert checkpoints_of(tmp_path) == [0]
    assert sorted(read_scalars(tmp_path / "summaries" / "train", "loss")) == [2]
    assert gc.get_freeze_count() == 0


def test_nothing_is_saved_when_saving_is_off(tmp_path):
    train.train_and_evaluate(
        toy_experiment.variant(STEPS=3), tmp_path, False, False, enable_checkpoint_saving=False
    )
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert sorted(read_scalars(tmp_path / "summaries" / "train", "loss")) == [2]


def test_a_run_of_one_batch_calls_back_and_says_that_nothing_was_saved(tmp_path):
    seen = []
    with pytest.raises(
        executors.InputExhaustedError, match="step 1 is not saved, since saving is off"
    ):
        train.train_and_evaluate(
            toy_experiment.variant(NUM_BATCHES=1),
            tmp_path,
            False,
            False,
            enable_checkpoint_saving=False,
            train_first_result_callback_fn=seen.append,
        )
    assert len(seen) == 1
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_metrics_that_change_between_batches_are_named(tmp_path):
    class Changing(programs.SingleTaskEvalProgram):
        def eval_step(self, state, prng_key, inputs, static_args):
            _, out = super().eval_step(state, prng_key, inputs, static_args)
            self.names = {"first"} if not hasattr(self, "names") else {"second"}
            return None, dataclasses.replace(out, clu_metrics=dict.fromkeys(self.names, Sum()))

    class Experiment(toy_experiment.Toy):
        def eval_programs(self):
            return [Changing(dataset) for dataset in self.eval_datasets()]

    with pytest.raises(ValueError, match="other names: first, second are only in one"):
        train.train_and_evaluate(Experiment(), tmp_path, False, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"reset_for_eval": False, "eval_loop_num_batches": 3},
            r"'test' ended after 2 batches, but eval_loop_num_batches is 3",
        ),
        ({"num_batches": 0}, r"'test' gave no batch at step 5"),
    ],
    ids=["too few", "none"],
)
def test_an_evaluation_input_that_ends_early_is_named(fields, message, tmp_path):
    class Short(toy_experiment.Toy):
        def datasets(self):
            training, test = super().datasets()
            return [training, test.set(**fields)]

    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(Short(), tmp_path, False, True)


def test_evaluation_inputs_need_different_names(tmp_path):
    class Twins(toy_experiment.Toy):
        def datasets(self):
            training, test = super().datasets()
            return [training, test, test]

    with pytest.raises(ValueError, match=r"\['test'\] are used more than once"):
        train.train_and_evaluate(Twins(), tmp_path, False, True)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([], "has no training dataset"),
        ([pax_fiddle.Config(toy_experiment.CountingInput, batch_size=2)], "has no training"),
    ],
    ids=["none", "evaluation only"],
)
def test_training_needs_a_training_input(datasets, message, tmp_path):
    class Empty(toy_experiment.Toy):
        def datasets(self):
            return datasets

    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(Empty(), tmp_path, False, False)

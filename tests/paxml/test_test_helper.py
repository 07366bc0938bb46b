"""Short runs for tests of experiments."""

import pytest
import toy_experiment

from paxml import test_helper


def test_short_run_writes_what_a_long_one_does(tmp_path):
    run = test_helper.short_run(toy_experiment.Toy(), tmp_path, num_steps=2)
    assert run.first_loss > 0
    assert run.checkpoints == [0, 2]
    assert list(run.losses["train"]) == [2] and list(run.losses["eval_test_test"]) == [2]


def test_loss_that_is_not_finite_is_named(tmp_path):
    class Broken(toy_experiment.Toy):
        def task(self):
            task = super().task()
            task.model.nan_at = -1e9
            return task

    with pytest.raises(AssertionError, match=r"Broken.*the loss is nan in the first step, step 1"):
        test_helper.short_run(Broken(), tmp_path)

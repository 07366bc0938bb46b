"""Tests of MyExperiment: run them with `pytest`."""

from paxml import train
from paxml.summary.plot import read_curves
from paxml.tools.describe import describe
from paxml.tools.template.experiment import MyExperiment


class ShortRun(MyExperiment):
    """A few steps, enough to see that everything fits together."""

    NUM_STEPS = 5
    EVAL_STEPS = 5

    def task(self):
        task = super().task()
        task.train.summary_interval_steps = 1
        return task


def test_size():
    """Nothing is computed here, so that this works for models of any size."""
    found = describe(MyExperiment())
    assert found.num_params == (2 + 1) * 32 + (32 + 1) * 32 + 32 * 2
    assert found.batch_size == MyExperiment.BATCH_SIZE


def test_run(tmp_path):
    """Trains, evaluates and saves."""
    train.train_and_evaluate(ShortRun(), tmp_path, eval_on_test=True)
    curves = read_curves(tmp_path)
    assert list(curves["train"]) == [1, 2, 3, 4, 5]
    assert curves["train"][5] < curves["train"][1]
    assert list(curves["eval_test_test"]) == [5]
    assert (tmp_path / "checkpoints" / "checkpoint_00000005").exists()

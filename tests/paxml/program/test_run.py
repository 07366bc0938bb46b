"""A whole run: what is written when (behaviours 1, 4, 6, 7, 8, 11-13, 102, 112)."""

import json

import numpy as np
import pytest
import toy_experiment

from paxml import train
from paxml.summary.events import read_scalars


def steps_in(directory):
    return sorted(int(path.name.removeprefix("checkpoint_")) for path in directory.iterdir())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    experiment = toy_experiment.Toy()
    train.write_experiment_class_vars_file(type(experiment), directory)
    train.write_hparams_file(experiment, directory)
    train.train_and_evaluate(experiment, directory, False, True)
    return directory


def test_checkpoints_at_step_0_at_the_interval_and_at_the_end(run_dir):
    assert steps_in(run_dir / "checkpoints") == [0, 4, 8, 10]


def test_train_summaries_at_multiples_of_the_new_step(run_dir):
    losses = read_scalars(run_dir / "summaries" / "train", "loss")
    assert sorted(losses) == [2, 4, 6, 8, 10]
    assert all(np.isfinite(list(losses.values())))


def test_learning_rate_is_that_of_the_step_before(run_dir):
    rates = read_scalars(run_dir / "summaries" / "train", "learning/lr_scalar")
    for step, rate in rates.items():
        np.testing.assert_allclose(rate, 0.1 * (1 - (step - 1) / 10), rtol=1e-5)


@pytest.mark.parametrize("directory", ["eval_test_test", "eval_train"])
def test_evaluations_at_their_interval_and_at_the_end(run_dir, directory):
    for tag in ("loss", "Metrics/mae", "Metrics/mae-weight"):
        assert sorted(read_scalars(run_dir / "summaries" / directory, tag)) == [5, 10]


def test_evaluation_averages_over_both_batches(run_dir):
    values = read_scalars(run_dir / "summaries" / "eval_test_test", "Metrics/mae-weight")
    assert values == {5: 16.0, 10: 16.0}


def test_the_bias_is_summarized_with_its_variable_norms(run_dir):
    tags = ["bias_scalar", "vars/params/w_scalar", "learning/raw_grad_norm_scalar"]
    for tag in tags:
        assert sorted(read_scalars(run_dir / "summaries" / "train", tag)) == [2, 4, 6, 8, 10]


def test_one_line_for_each_evaluated_example(run_dir):
    lines = (run_dir / "eval_out" / "test" / "eval_out_10_shard_0.jsonl").read_text().splitlines()
    assert len(lines) == 16
    errors = [json.loads(line)["error"] for line in lines]
    loss = read_scalars(run_dir / "summaries" / "eval_test_test", "loss")[10]
    np.testing.assert_allclose(np.mean(errors), loss, rtol=1e-5)


def test_text_files_name_the_settings_and_the_variables(run_dir):
    assert "    SAVE: 4" in (run_dir / "experiment_cls_vars.txt").read_text()
    params = (run_dir / "model_params.txt").read_text()
    assert "train.num_train_steps : 10" in params
    assert "batch_size : 8" in params
    post = (run_dir / "post_init_model_params.txt").read_text()
    assert "keep_prob : 0.5" in post
    assert "params.w.shape" in post
    provenance = (run_dir / "train_state_provenance.txt").read_text()
    assert 'mdl_vars/params/w: "random_init"' in provenance


def test_the_parameter_table_counts_every_variable(run_dir):
    lines = (run_dir / "parameters.txt").read_text().splitlines()
    assert lines[0].split()[:5] == ["variable", "shape", "dtype", "count", "size"]
    assert any(line.split()[:4] == ["params/w", "3", "float32", "3"] for line in lines)
    assert lines[-1].split()[:5] == ["3", "variables", "7", "28", "B"]


def test_the_last_step_is_evaluated_and_not_saved_twice(tmp_path):
    """Behaviours 2 and 8."""
    train.train_and_evaluate(toy_experiment.variant(STEPS=8), tmp_path, False, True)
    assert steps_in(tmp_path / "checkpoints") == [0, 4, 8]
    assert sorted(read_scalars(tmp_path / "summaries" / "eval_test_test", "loss")) == [5, 8]
    assert sorted(read_scalars(tmp_path / "summaries" / "eval_train", "loss")) == [5]


def test_a_finished_run_started_again_does_nothing(run_dir, caplog):
    before = sorted((run_dir / "checkpoints").rglob("*"))
    written = read_scalars(run_dir / "summaries" / "train", "loss")
    (run_dir / "parameters.txt").unlink()
    with caplog.at_level("INFO", logger="absl"):
        train.train_and_evaluate(toy_experiment.Toy(), run_dir, False, True)
    assert sorted((run_dir / "checkpoints").rglob("*")) == before
    assert read_scalars(run_dir / "summaries" / "train", "loss") == written
    assert f"Restored step 10 from {run_dir / 'checkpoints'}" in caplog.text
    assert caplog.text.count(f"7 parameters, table in {run_dir / 'parameters.txt'}") == 1
    assert (run_dir / "parameters.txt").exists()


def test_a_finished_run_goes_on_when_it_is_given_more_steps(tmp_path):
    """Behaviour 5: from its last step."""

    class Short(toy_experiment.Toy):
        STEPS = 4

    class Longer(toy_experiment.Toy):
        STEPS = 6

    train.train_and_evaluate(Short(), tmp_path, False, False)
    assert steps_in(tmp_path / "checkpoints") == [0, 4]
    train.train_and_evaluate(Longer(), tmp_path, False, False)
    assert steps_in(tmp_path / "checkpoints") == [0, 4, 6]
    assert sorted(read_scalars(tmp_path / "summaries" / "train", "loss")) == [2, 4, 6]


def test_zero_steps_give_one_checkpoint_and_no_evaluation_input_is_opened(tmp_path):
    """Behaviour 3."""

    class Fails(toy_experiment.CountingInput):
        def __post_init__(self):
            super().__post_init__()
            if not self.is_training:
                raise AssertionError("opened")

    class NoSteps(toy_experiment.Toy):
        STEPS = 0
        INPUT = Fails

        def datasets(self):
            training, test = super().datasets()
            test.cls = Fails
            return [training, test]

    train.train_and_evaluate(NoSteps(), tmp_path, False, False)
    assert steps_in(tmp_path / "checkpoints") == [0]
    assert not (tmp_path / "summaries" / "eval_test_test").exists()

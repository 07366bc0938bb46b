"""Experiments described by Fiddle configs, and the flags that name them."""

import dataclasses

import fiddle as fdl
import pytest
import toy_experiment
from absl import flags
from absl.testing import flagsaver

from paxml import main, parameterized_experiment
from paxml.experiment.from_fiddle import experiment_of
from paxml.experimental import baseline_experiment
from praxis import pax_fiddle


@dataclasses.dataclass
class ToyBaseline(baseline_experiment.BaselineExperiment):
    num_steps: int = 10
    seed: int = 1

    def experiment_fixture(self):
        train, test = toy_experiment.Toy().datasets()
        return pax_fiddle.Config(
            parameterized_experiment.ParameterizedExperiment,
            task=toy_experiment.variant(STEPS=self.num_steps, SEED=self.seed).task(),
            train_datasets=[train],
            eval_datasets=[test],
        )


def steps_and_seed(experiment):
    assert isinstance(experiment, parameterized_experiment.ParameterizedExperiment)
    task = experiment.task()
    assert isinstance(task, fdl.Buildable)
    assert [dataset.name for dataset in experiment.datasets()] == ["train", "test"]
    return task.train.num_train_steps, task.train.random_seed


def test_high_and_low_level():
    high = ToyBaseline.highlevel_config(num_steps=20)
    assert fdl.ordered_arguments(high) == {"num_steps": 20, "seed": 1}
    high.seed = 3
    assert steps_and_seed(fdl.build(high)) == (20, 3)
    low = ToyBaseline.lower(high)
    assert low.task.train.num_train_steps == 20
    low.task.train.random_seed = 5
    assert steps_and_seed(experiment_of(low)) == (20, 5)
    assert ToyBaseline.lowlevel_config(seed=7).task.train.random_seed == 7


def test_wrong_settings_and_configs_are_named():
    with pytest.raises(TypeError, match=r"no setting 'num_step'\. Did you mean 'num_steps'\?"):
        ToyBaseline.highlevel_config(num_step=3)
    with pytest.raises(ValueError, match=r"ToyBaseline\.lower got a config of .*dict.*, expected"):
        ToyBaseline.lower(fdl.Config(dict))
    with pytest.raises(ValueError, match="builds a dict, expected an experiment"):
        experiment_of(fdl.Config(dict))
    with pytest.raises(ValueError, match="gave a int, expected a config"):
        experiment_of(3)
    with pytest.raises(ValueError, match=r"--set=task\.trian\.x=1: 'task', a config of .*'train'"):
        experiment_of(ToyBaseline.lowlevel_config(), ["task.trian.x=1"])


@pytest.fixture
def fiddle_flags(monkeypatch):
    """Gives flags to a new parse; afterwards they are as they were."""
    module = type("Module", (), {"ToyBaseline": ToyBaseline})
    monkeypatch.setitem(__import__("sys").modules, "toy_baseline", module)

    def parse(*given):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["test", *given])

    with flagsaver.flagsaver():
        yield parse


def test_flags_name_a_config(fiddle_flags):
    fiddle_flags(
        "--fdl=config:toy_baseline.ToyBaseline.lowlevel_config",
        "--fdl=set:task.train.random_seed=5",
        "--set=task.train.num_train_steps=30",
    )
    assert steps_and_seed(main.create_experiment_config()) == (30, 5)


def test_a_highlevel_config_is_called_with_settings(fiddle_flags):
    fiddle_flags("--fdl=config:toy_baseline.ToyBaseline.highlevel_config(num_steps=4)")
    assert steps_and_seed(main.create_experiment_config()) == (4, 1)

"""What an experiment has by default, and its settings as text (behaviour 113)."""

import pytest
import toy_experiment

from paxml import base_experiment, experiment_utils
from praxis import base_input


class Derived(toy_experiment.Toy):
    STEPS = 20
    NOTE = "a: b"


def test_datasets_are_told_apart_by_is_training():
    toy = toy_experiment.Toy()
    assert [dataset.name for dataset in toy.train_datasets()] == ["train"]
    assert [dataset.name for dataset in toy.eval_datasets()] == ["test"]
    assert list(toy.decode_datasets()) == []
    assert len(toy.eval_programs()) == 1


def test_the_specs_come_from_the_training_input():
    config = toy_experiment.Toy().get_input_specs_provider_params()
    assert config.cls is base_input.DatasetInputSpecsProvider
    specs = config.Instantiate().get_input_specs()
    assert specs.x.shape == (8, toy_experiment.FEATURES)


def test_the_old_names_warn():
    toy = toy_experiment.Toy()
    with pytest.warns(DeprecationWarning, match="use decode_datasets"):
        assert toy.decoder_datasets() == []
    with pytest.warns(DeprecationWarning, match="use train_datasets"):
        assert toy.training_dataset().name == "train"


@pytest.mark.parametrize("kept", [0, 2])
def test_no_or_several_training_datasets_are_an_error(kept):
    class Other(toy_experiment.Toy):
        def datasets(self):
            training, test = super().datasets()
            return [test, *[training] * kept]

    with pytest.raises(ValueError, match=f"Other has {kept} training datasets.*exactly one"):
        Other().get_input_specs_provider_params()


def test_a_plain_experiment_is_no_search():
    toy = toy_experiment.Toy()
    assert toy.sub_experiments() == {"": toy_experiment.Toy}
    assert (toy.partitioner(), toy.executor()) == (None, None)
    toy.validate()
    with pytest.raises(NotImplementedError, match="Toy is not a tuning experiment"):
        toy.search()


def test_abstract_methods_are_required():
    with pytest.raises(TypeError, match="abstract"):
        base_experiment.BaseExperiment()  # pyright: ignore[reportAbstractUsage]


def test_each_setting_stands_once_under_the_class_that_sets_it():
    text = experiment_utils.get_cls_vars_summary(Derived)
    base, derived = text.split("\n\n")
    assert base.startswith("toy_experiment.Toy:\n")
    assert "    SAVE: 4" in base
    assert "STEPS" not in base
    assert derived.splitlines()[0].endswith("Derived:")
    assert derived.splitlines()[1:] == ["    STEPS: 20", "    NOTE: 'a: b'"]

"""Experiments made of configs (behaviour 117)."""

import warnings

import pytest

from paxml import base_experiment, parameterized_experiment, tasks_lib
from praxis import base_input, pax_fiddle

TASK = pax_fiddle.Config(tasks_lib.SingleTask, name="mine")


def dataset(name, is_training=False):
    return pax_fiddle.Config(base_input.BaseInput, name=name, is_training=is_training)


TRAIN, OTHER_TRAIN = dataset("train", True), dataset("more", True)
EVAL, DECODE = dataset("eval"), dataset("decode")


def make(**parts):
    return parameterized_experiment.ParameterizedExperiment(task=TASK, **parts)


def test_parts_are_handed_on_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment = make(train_datasets=[TRAIN], eval_datasets=[EVAL], decode_datasets=[DECODE])
    assert isinstance(experiment, base_experiment.BaseExperiment)
    assert experiment.task() is TASK
    assert experiment.datasets() == [TRAIN, EVAL]
    assert experiment.train_datasets() == [TRAIN]
    assert experiment.eval_datasets() == [EVAL]
    assert experiment.decode_datasets() == [DECODE]


@pytest.mark.parametrize(
    ("field", "wrong", "found", "wanted"),
    [
        ("train_datasets", EVAL, False, True),
        ("eval_datasets", TRAIN, True, False),
        ("decode_datasets", TRAIN, True, False),
    ],
)
def test_dataset_in_the_wrong_list(field, wrong, found, wanted):
    """Behaviour 117."""
    message = rf"{field}\[0\], dataset '{wrong.name}', has is_training = {found}, expected {wanted}"
    with pytest.raises(ValueError, match=message):
        make(**{field: [wrong]})


def test_old_names_warn_and_add():
    with pytest.warns(DeprecationWarning, match="training_dataset is deprecated; use train_data"):
        experiment = make(train_datasets=[TRAIN], training_dataset=OTHER_TRAIN)
    assert experiment.train_datasets() == [TRAIN, OTHER_TRAIN]
    with pytest.warns(DeprecationWarning, match="decoder_datasets is deprecated; use decode_data"):
        experiment = make(train_datasets=[TRAIN], decoder_datasets=[DECODE])
    assert experiment.decode_datasets() == [DECODE]


def test_specs_provider_is_the_given_one_or_looks_at_the_only_input():
    own = pax_fiddle.Config(base_input.DatasetInputSpecsProvider, input_p=EVAL)
    assert make(input_specs_provider=own).get_input_specs_provider_params() is own
    default = make(train_datasets=[TRAIN]).get_input_specs_provider_params()
    assert default.input_p is TRAIN
    with pytest.raises(ValueError, match="has 2 training datasets, expected exactly one"):
        make(train_datasets=[TRAIN, OTHER_TRAIN]).get_input_specs_provider_params()

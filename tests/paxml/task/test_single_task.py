"""What a task refuses, and old names."""

import pytest
import toy_experiment

from paxml import learners, tasks_lib
from paxml.task import single_task
from paxml.task.unbuilt import UNBUILT, refuse_unbuilt_settings
from praxis import pax_fiddle
from praxis.layers import linears


def config(**fields):
    task = toy_experiment.Toy().task()
    return task.set(**fields)


def test_old_names_configure_the_new_classes():
    train = tasks_lib.SingleTask.TrainHParams(num_train_steps=7)
    assert pax_fiddle.instantiate(train).num_train_steps == 7
    assert tasks_lib.SingleTask.TrainHParams.config().cls is tasks_lib.SingleTask.Train


def test_settings_are_frozen_once_built():
    task = pax_fiddle.instantiate(config())
    assert [learner.name for learner in task.learners] == ["learner_0"]
    with pytest.raises(AttributeError, match="num_train_steps"):
        task.train.num_train_steps = 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "SingleTask has no name"),
        ({"loss_aggregator": pax_fiddle.Config(tasks_lib.SingleTask)}, "loss_aggregator is set"),
    ],
    ids=["name", "two losses"],
)
def test_wrong_tasks_say_what_to_set(fields, message):
    with pytest.raises(ValueError, match=message):
        pax_fiddle.instantiate(config(**fields))


@pytest.mark.parametrize(
    ("model", "message"),
    [(None, "'toy' has no model"), (pax_fiddle.Config(dict), "model is a dict, expected a layer")],
)
def test_a_model_must_be_a_layer(model, message):
    with pytest.raises(ValueError, match=message):
        single_task.built_model(model, "toy")


def test_a_model_may_be_built_already():
    model = pax_fiddle.Config(linears.Linear, name="l", input_dims=2, output_dims=3).Instantiate()
    task = config()
    task.model = model
    assert isinstance(pax_fiddle.instantiate(task).model, linears.Linear)


def test_a_learner_needs_a_loss_name():
    task = config()
    task.train.learner.loss_name = None
    with pytest.raises(ValueError, match=r"no loss_name.*train\.learner\.loss_name"):
        pax_fiddle.instantiate(task)


def test_several_learners_are_refused():
    with pytest.raises(ValueError, match="sequence of 2; a task has one learner"):
        single_task.built_learner([pax_fiddle.Config(learners.Learner)] * 2, "toy")


@pytest.mark.parametrize("path", UNBUILT)
def test_settings_without_effect_are_refused(path):
    section, field = path.split(".")
    task = config()
    values = {"init_from_checkpoint_rules": {"a": 1}, "restore_transformations": {"a": 1}}
    values |= {"tensorstore_metadata_key": "key", "profiler_capture_step": 3}
    setattr(getattr(task, section), field, values.get(field, True))
    with pytest.raises(NotImplementedError, match=f"{path} = .* has no effect yet"):
        refuse_unbuilt_settings(pax_fiddle.instantiate(task))
    refuse_unbuilt_settings(pax_fiddle.instantiate(config()))

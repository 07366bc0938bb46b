"""Tools that print what an experiment consists of, and check that it can be built."""

import json

import toy_experiment

from paxml.tools import dump_hparams, dump_input_specs, validate_config
from praxis import pax_fiddle

TOY = "toy_experiment.Toy"


def test_config_as_text(capsys):
    assert dump_hparams.main([TOY, "--set", "STEPS=77"]) == 0
    text = capsys.readouterr().out
    assert "num_train_steps : 77" in text
    assert "post" not in text
    assert dump_hparams.main([TOY, "--post_init"]) == 0
    more = capsys.readouterr().out
    assert "params.w" in more


def test_specs_of_a_batch(capsys):
    assert dump_input_specs.main([TOY]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "x": {"_array": {"dtype": "float32", "shape": [8, 3]}},
        "y": {"_array": {"dtype": "float32", "shape": [8]}},
    }


def test_a_sound_experiment(capsys):
    assert validate_config.main([TOY]) == 0
    assert capsys.readouterr().out == "Toy: all configs can be built.\n"


class Broken(toy_experiment.Toy):
    """Two inputs of one name, and a model that cannot be set up."""

    def datasets(self):
        train, test = super().datasets()
        return [train, test, test.clone()]

    def task(self):
        task = super().task()
        task.model = pax_fiddle.Config(toy_experiment.Regression, name="r", keep_prob=-1.0)
        return task


def test_all_that_is_wrong_is_listed():
    problems = validate_config.validate_experiment(Broken())
    assert any("Input names ['test'] are used more than once" in text for text in problems)
    assert any(text.startswith("variables: ") and "keep_prob" in text for text in problems)
    assert not any(text.startswith("task()") for text in problems)

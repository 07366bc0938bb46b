"""Fields of configs by path, and the text of values."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import pytest
import toy_experiment

from paxml.experiment.override import override
from paxml.experiment.settings import with_settings
from paxml.experiment.values import parse_value
from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1
    rate: float = 0.5


class Holder(base_layer.BaseLayer):
    count: int = 3
    rate: float | None = None
    flag: bool = False
    title: str = "a"
    color: Color = Color.RED
    sizes: Sequence[int] | None = None
    table: Mapping[str, int] | None = None
    anything: Any = None
    inner: Inner = dataclasses.field(default_factory=Inner)
    layers: list[pax_fiddle.Config[linears.Linear]] = dataclasses.field(default_factory=list)
    act_tpl: pax_fiddle.Config[activations.BaseActivation] = base_layer.template_field(
        activations.ReLU
    )


def holder():
    two = [pax_fiddle.Config(linears.Linear, input_dims=size) for size in (3, 5)]
    return pax_fiddle.Config(
        Holder, name="h", layers=two, table={"a": 1, "b": 2}, inner=Inner(), sizes=(1, 2)
    )


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("count", "7", 7),
        ("count", "1e3", 1000),
        ("rate", "2", 2.0),
        ("rate", "none", None),
        ("flag", "true", True),
        ("flag", "1", True),
        ("title", "5", "5"),
        ("title", "'5'", "5"),
        ("title", "a=b", "a=b"),
        ("color", "blue", Color.BLUE),
        ("color", "Color.BLUE", Color.BLUE),
        ("color", "b", Color.BLUE),
        ("sizes", "[3, 4]", [3, 4]),
        ("sizes", "None", None),
        ("sizes[1]", "9", (1, 9)),
        ("table.b", "4", {"a": 1, "b": 4}),
        ("anything", "{'x': [1]}", {"x": [1]}),
        ("anything", "words and words", "words and words"),
        ("anything", "praxis.layers.linears.Linear", linears.Linear),
        ("inner.rate", "2", Inner(rate=2.0)),
        ("layers.1.output_dims", "7", 7),
        ("layers[0].output_dims", "7", 7),
        ("fprop_dtype", "bfloat16", jnp.bfloat16),
        ("fprop_dtype", "None", None),
        ("dtype", "jnp.bfloat16", jnp.bfloat16),
    ],
)
def test_value_at_a_path(path, text, value):
    config = override(holder(), path, text)
    where = path.replace("[", ".").replace("]", "").split(".")
    keep = 1 if where[0] in ("sizes", "table", "inner") else len(where)
    found = config
    for part in where[:keep]:
        found = found[int(part)] if isinstance(found, list) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_class_in_the_place_of_a_config():
    config = override(holder(), "act_tpl", "praxis.layers.activations.GELU")
    assert config.act_tpl.cls is activations.GELU
    assert not hasattr(override(config, "act_tpl.approximate", "false").act_tpl, "nothing")
    assert config.act_tpl.approximate is False


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("coun", "1", r"^a config of Holder has no field 'coun'\. Did you mean 'count'"),
        ("count", "many", r"'count' is 3, and 'many' is not an int\."),
        ("count", "1.5", r"'count' is 3, and '1\.5' is not an int\."),
        ("rate", "x", r"'rate' is None, and 'x' is not a float\."),
        ("flag", "maybe", r"'maybe' is not true or false\."),
        ("color", "green", r"'green' is not one of RED, BLUE\."),
        ("sizes", "3", r"'3' is not a list\."),
        ("sizes.7", "3", r"'sizes', \(1, 2\), has no field '7'\. It has \['0', '1'\]\."),
        ("table.c", "3", r"has no field 'c'"),
        ("count.x", "3", r"'count' is 3 and has no field 'x'\."),
        ("layers.0.output_dim", "7", r"'layers\.0', a config of Linear, .* mean 'output_dims'"),
        ("fprop_dtype", "bfloat", r"'bfloat' is not a dtype.*did you mean 'bfloat16'\?"),
        ("act_tpl", "3", r"it holds a config of ReLU: set one of its fields"),
        ("act_tpl", "no_package.X", r"'no_package\.X' cannot be imported: No module named"),
        ("", "3", "the path is empty"),
    ],
)
def test_wrong_path_or_value(path, text, message):
    with pytest.raises(ValueError, match=message):
        override(holder(), path, text)


def test_text_without_a_type_to_go_by():
    assert parse_value("[1, 2]", old=3, strict=False) == [1, 2]
    with pytest.raises(ValueError, match="'x' is not an int"):
        parse_value("x", old=3, strict=False)


def test_settings_of_class_and_task_together():
    settings = ["STEPS=20", "train.save_max_to_keep=3", "task.model.keep_prob=1"]
    changed: Any = with_settings(toy_experiment.Toy, settings)
    task = changed().task()
    assert changed.__name__ == "Toy"
    assert task.train.num_train_steps == 20
    assert task.train.save_max_to_keep == 3
    assert task.model.keep_prob == 1.0
    assert toy_experiment.Toy().task().train.save_max_to_keep == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.steps=1", r"--set=train\.steps=1: 'train', a config of Train, has no field"),
        ("steps=1", r"--set=steps=1: a config of SingleTask has.*Did you mean 'STEPS'\?"),
        ("STEPS=many", r"--set=STEPS=many: Toy\.STEPS is 10, and 'many' is not an int\."),
    ],
)
def test_wrong_setting_is_known_before_anything_starts(text, message):
    with pytest.raises(ValueError, match=message):
        with_settings(toy_experiment.Toy, [text])

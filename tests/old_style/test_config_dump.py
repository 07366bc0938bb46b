"""A config is written as text and as JSON, compared, and read again."""

import copy
import pickle

import fiddle as fdl
import jax.numpy as jnp
import pytest
from fiddle import selectors
from fiddle.experimental import serialization

from praxis import base_hyperparams, base_layer, fiddle_tags, pax_fiddle, py_utils
from praxis.layers import linears, transformer_models


class Mixed(base_layer.BaseLayer):
    """Fields of every kind."""

    hidden: int = pax_fiddle.field(default=3)
    rate: float = pax_fiddle.field(default=0.1, tags=[fiddle_tags.DropoutRate])
    options: py_utils.NestedMap | None = None
    parts: list[pax_fiddle.Config[base_layer.BaseLayer]] | None = None
    linear_tpl: pax_fiddle.Config[base_layer.BaseLayer] = base_layer.template_field(linears.Linear)


def config():
    p = pax_fiddle.Config(Mixed, name="mixed", dtype=jnp.bfloat16)
    p.params_init = base_layer.WeightInit.Gaussian(0.5)
    p.options = py_utils.NestedMap(a=py_utils.NestedMap(b=[1, 2.5, None]))
    p.parts = [linears.Linear.config(input_dims=i) for i in (1, 2)]
    p.linear_tpl.weight_split_dims_mapping.wt = ("data", None)
    return p


def test_text():
    text = base_hyperparams.nested_struct_to_text(config())
    lines = text.splitlines()
    assert lines == sorted(lines)
    for line in (
        "dtype : type/jax.numpy/bfloat16",
        "name : 'mixed'",
        "options.a.b : [1, 2.5, None]",
        "parts[1].input_dims : 2",
        "linear_tpl.cls : type/praxis.layers.linears/Linear",
    ):
        assert line in lines


@pytest.mark.parametrize(
    "round_trip",
    [
        lambda p: serialization.load_json(serialization.dump_json(p)),
        lambda p: pickle.loads(pickle.dumps(p)),
        copy.deepcopy,
        lambda p: p.clone(),
    ],
    ids=["json", "pickle", "deepcopy", "clone"],
)
def test_reload(round_trip):
    p = config()
    again = round_trip(p)
    assert again == p and again is not p
    assert isinstance(again.options.a, py_utils.NestedMap)
    to_text = base_hyperparams.nested_struct_to_text
    assert to_text(again) == to_text(p)
    again.linear_tpl.input_dims = 9
    assert again != p


def test_whole_model_through_json():
    p = pax_fiddle.Config(transformer_models.TransformerLm, name="lm", vocab_size=5, model_dims=4)
    again = serialization.load_json(serialization.dump_json(p))
    assert again == p and type(again) is type(p)


def test_fiddle_tools():
    p = config()
    selectors.select(p, tag=fiddle_tags.DropoutRate).replace(0.3)
    assert p.rate == 0.3
    selectors.select(p, linears.Linear).set(output_dims=8)
    assert [part.output_dims for part in p.parts] == [8, 8] and p.linear_tpl.output_dims == 8
    assert fdl.get_callable(p) is Mixed

"""Tables of variables and configs."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from praxis import inspection, pax_fiddle
from praxis.core.weights import WeightHParams, WeightHParamsCollection, WeightInit
from praxis.layers import linears

WEIGHTS = {
    "params": {
        "lin": {
            "b": WeightHParams([7], init=WeightInit.Constant(0.0), dtype=jnp.bfloat16),
            "w": WeightHParams(
                [5, 7],
                init=WeightInit.Gaussian(0.02),
                dtype=jnp.float32,
                repeat_prefix=[3],
                repeat_prefix_split_dims_mapping=[-1],
                tensor_split_dims_mapping=[("data", "mdl"), None],
                collections=[WeightHParamsCollection.NON_TRAINABLE],
            ),
        }
    }
}


TABLE = """\
variable      shape  dtype     count   size  init            sharding        collections
------------  -----  --------  -----  -----  --------------  --------------  -------------
params/lin/b  7      bfloat16      7   14 B  constant(0)     replicated
params/lin/w  3x5x7  float32     105  420 B  gaussian(0.02)  -, data+mdl, -  non_trainable
------------  -----  --------  -----  -----  --------------  --------------  -------------
2 variables                      112  434 B"""


def test_variables_of_a_stacked_layer():
    """Shapes are those of the stored arrays, with the stack in front."""
    assert str(inspection.variable_table(WEIGHTS)) == TABLE


def test_arrays():
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    split = jax.device_put(np.ones([4, 3], np.float32), NamedSharding(mesh, P("x")))
    table = inspection.variable_table({"params": {"w": split, "n": np.int32(1)}})
    assert [column.title for column in table.columns] == [
        "variable",
        "shape",
        "dtype",
        "count",
        "size",
        "sharding",
    ]
    assert table.rows == [
        ["params/n", "scalar", "int32", "1", "4 B", ""],
        ["params/w", "4x3", "float32", "12", "48 B", "x"],
    ]
    assert table.totals is not None
    assert table.totals[3] == "13"


def test_variables_of_a_layer_match_its_arrays():
    layer = pax_fiddle.build(
        pax_fiddle.Config(linears.FeedForward, name="ff", input_dims=4, output_dims=8)
    )
    x = jnp.ones([2, 4])
    described = inspection.variable_table(layer.abstract_init_with_metadata(x))
    made = inspection.variable_table(layer.init(jax.random.key(0), x))
    assert [row[:5] for row in described.rows] == [row[:5] for row in made.rows]
    assert described.totals is not None
    assert described.totals[3:5] == ["40", "160 B"]


def test_no_variables():
    assert "0 variables" in str(inspection.variable_table({}))


def test_rich_and_html_show_the_same():
    table = inspection.variable_table(WEIGHTS)
    console = rich.console.Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    terminal, notebook = console.export_text(), table._repr_html_()
    for text in ("params/lin/w", "gaussian(0.02)", "3x5x7", "434 B"):
        assert text in terminal
        assert f">{text}<" in notebook
    assert notebook.count("<tr>") == 4


def test_html_is_escaped():
    table = inspection.Table([inspection.Column("<a>")], [["x & [b]y[/b]"]])
    assert '<th style="text-align:left">&lt;a&gt;</th>' in table._repr_html_()
    assert "x &amp; [b]y[/b]" in table._repr_html_()
    console = rich.console.Console(record=True, file=io.StringIO())
    console.print(table)
    assert "x & [b]y[/b]" in console.export_text()


def changed(config):
    table = inspection.config_table(config, changed_only=True)
    return {path: (value, default) for _, path, value, default in table.rows}


def test_config_marks_what_is_not_at_its_default():
    config = pax_fiddle.Config(linears.FeedForward, name="ff", input_dims=4)
    config.linear_tpl.weight_init = WeightInit.Constant(0.5)
    config.activation_tpl.dtype = jnp.bfloat16
    assert changed(config) == {
        "name": ("'ff'", "None"),
        "input_dims": ("4", "0"),
        "linear_tpl.weight_init.method": ("'constant'", ""),
        "linear_tpl.weight_init.scale": ("0.5", ""),
        "activation_tpl.dtype": ("bfloat16", "float32"),
    }
    rows = inspection.config_table(config).rows
    marks = {path: mark for mark, path, _, _ in rows}
    assert (marks["input_dims"], marks["output_dims"]) == ("*", "")
    assert [row[2] for row in rows if row[1] == "linear_tpl.cls"] == ["Linear"]


def test_config_with_another_class_inside():
    """The fields of the new class are compared with its own defaults."""
    config = pax_fiddle.Config(linears.FeedForward)
    config.linear_tpl = pax_fiddle.Config(linears.Bias, dims=3)
    assert changed(config) == {
        "linear_tpl.cls": ("Bias", "Linear"),
        "linear_tpl.dims": ("3", "0"),
    }


def test_config_at_its_defaults():
    assert changed(pax_fiddle.Config(linears.FeedForward)) == {}


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_sizes(size, text):
    assert inspection.size_text(size) == text

"""Where the common values of layers come from."""

import jax
import jax.numpy as jnp
import pytest

from praxis import base_layer, inspection, pax_fiddle
from praxis.layers import linears, repeats

INPUTS = jax.ShapeDtypeStruct([2, 3], jnp.float32)


class Nest(base_layer.BaseLayer):
    """Runs its template, the layer in its field, and those in its list."""

    inner_tpl: pax_fiddle.Config[base_layer.BaseLayer] = base_layer.template_field(None)
    one: base_layer.BaseLayer | None = base_layer.instance_field(None)
    many: list = base_layer.instance_field(list)

    def setup(self):
        if self.inner_tpl is not None:
            self.create_child("inner", self.inner_tpl)

    def __call__(self, inputs):
        held = [*self.children.values(), *([self.one] if self.one else []), *self.many]
        for layer in held:
            inputs = layer(inputs)
        return inputs


def bias(**fields):
    return pax_fiddle.Config(linears.Bias, dims=3, **fields)


def origins(config, field):
    found = inspection.inherited_values(config, INPUTS)
    return {
        "/".join(entry.path): (
            entry.value,
            None if entry.origin is None else "/".join(entry.origin),
        )
        for entry in found
        if entry.field == field
    }


def test_templates_take_from_the_nearest_ancestor_that_sets_the_value():
    middle = pax_fiddle.Config(
        Nest, inner_tpl=pax_fiddle.Config(Nest, inner_tpl=bias()), fprop_dtype=jnp.bfloat16
    )
    assert origins(pax_fiddle.Config(Nest, inner_tpl=middle), "fprop_dtype") == {
        "": (jnp.float32, None),
        "inner": (jnp.bfloat16, "inner"),
        "inner/inner": (jnp.bfloat16, "inner"),
        "inner/inner/inner": (jnp.bfloat16, "inner"),
    }


def test_a_value_set_on_the_child_is_its_own_even_if_equal():
    config = pax_fiddle.Config(
        Nest,
        mesh_axis_names=["x"],
        inner_tpl=pax_fiddle.Config(Nest, inner_tpl=bias(), mesh_axis_names=["x"]),
    )
    found = origins(config, "mesh_axis_names")
    assert {path: origin for path, (_, origin) in found.items()} == {
        "": "",
        "inner": "inner",
        "inner/inner": "inner",
    }


def test_layers_in_fields_and_lists():
    nested = pax_fiddle.Config(Nest, one=bias(), skip_lp_regularization=False)
    config = pax_fiddle.Config(Nest, one=bias(), many=[bias(), nested])
    config.skip_lp_regularization = True
    assert origins(config, "skip_lp_regularization") == {
        "": (True, ""),
        "one": (True, ""),
        "many_0": (True, ""),
        "many_1": (False, "many_1"),
        "many_1/one": (False, "many_1"),
    }


def test_initializers():
    init = base_layer.WeightInit.Constant(0.5)
    config = pax_fiddle.Config(Nest, params_init=init, inner_tpl=bias())
    assert origins(config, "params_init") == {"": (init, ""), "inner": (init, "")}


def test_fprop_dtype_that_follows_dtype():
    config = pax_fiddle.Config(Nest, inner_tpl=bias(), dtype=jnp.bfloat16)
    assert origins(config, "fprop_dtype") == {
        "": (jnp.bfloat16, ""),
        "inner": (jnp.bfloat16, ""),
    }


def test_inside_repeat():
    config = pax_fiddle.Config(repeats.Repeat, sub_tpl=bias(), x_times=2, contiguous_submeshes=True)
    assert origins(config, "contiguous_submeshes") == {"": (True, ""), "sub": (True, "")}


def test_the_config_stays_as_it_was():
    config = pax_fiddle.Config(Nest, inner_tpl=bias(), dtype=jnp.bfloat16)
    before = config.clone()
    inspection.inheritance_table(config, INPUTS)
    assert config == before
    assert vars(config).keys() == vars(before).keys()


def test_table_leaves_out_what_nobody_set():
    config = pax_fiddle.Config(Nest, name="m", one=bias(dtype=jnp.bfloat16))
    table = inspection.inheritance_table(config, INPUTS)
    assert [column.title for column in table.columns] == [
        "layer",
        "class",
        "dtype",
        "fprop_dtype",
        "params_init",
    ]
    assert [row[:3] for row in table.rows] == [
        ["m", "Nest", "float32"],
        ["m/one", "Bias", "bfloat16  (m/one)"],
    ]


@pytest.mark.parametrize("name", [None, "lm"])
def test_name_of_the_outermost_layer(name):
    table = inspection.inheritance_table(pax_fiddle.Config(Nest, name=name), INPUTS)
    assert table.rows[0][0] == (name or "(root)")

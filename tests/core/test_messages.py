"""Mistakes that used to fail later or elsewhere say now what was given and what to do."""

import jax
import jax.numpy as jnp
import pytest

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import checks, linears

KEY = jax.random.PRNGKey(0)


class Declares(base_layer.BaseLayer):
    child: object = None

    def setup(self):
        if self.child is not None:
            self.create_child("lin", self.child)

    def __call__(self):
        pass


def declares(**fields):
    return pax_fiddle.build(pax_fiddle.Config(Declares, name="net", **fields)).init(KEY)


def test_a_class_in_the_place_of_a_template():
    message = r"child 'lin' is made from a class, .*Write pax_fiddle\.Config\(Linear\)\."
    with pytest.raises(ValueError, match=message):
        declares(child=linears.Linear)


def test_a_layer_called_on_its_config():
    message = r"^Linear: dtype is a config of Linear, expected .* call `config\.Instantiate\(\)`"
    with pytest.raises(TypeError, match=message):
        linears.Linear(pax_fiddle.Config(linears.Linear))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", [pax_fiddle.Config, pax_fiddle.Partial])
def test_a_config_of_no_class(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__} takes a class or function.*'x' of type"):
        kind("x")


class Sized(base_layer.BaseLayer):
    # Not `int`, or the checks of annotations would speak up first.
    size: object = None

    def setup(self):
        checks.check_sizes(self, "size")

    def __call__(self):
        pass


@pytest.mark.parametrize("size", ["5", 5.0])
def test_a_size_that_is_no_int(size):
    config = pax_fiddle.Config(Sized, name="net", size=size)
    message = rf"Sized 'net': size is {size!r} of type {type(size).__name__}, expected an int"
    with pytest.raises(TypeError, match=message):
        pax_fiddle.build(config).init(KEY)


def test_mesh_axes_say_what_to_write():
    with pytest.raises(ValueError, match=r"'model'.*\['data', 'mdl'\]\. Name one of them, or None"):
        base_layer.to_partition_spec(["model"], ["data", "mdl"])
    layer = linears.Linear(ici_mesh_shape=[2, 4], mesh_axis_names=["data", "mdl"], name="lin")
    with pytest.raises(ValueError, match=r"Linear 'lin': .*'model'.*\. Name one of them, or None"):
        layer.get_shard_count_on_dim("model")


@pytest.mark.parametrize("use_select", [True, False])
def test_paddings_of_another_length(use_select):
    message = r"apply_padding: padding of shape \(2, 4\) .*\(2, 5, 3\).*pass axis=0"
    with pytest.raises(ValueError, match=message):
        py_utils.apply_padding(jnp.ones([2, 5, 3]), jnp.zeros([2, 4]), use_select=use_select)

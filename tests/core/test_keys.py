"""Which key draws which variable, in words and NumPy (core behaviours 72 to 74)."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from praxis import base_layer, pax_fiddle
from praxis.base_layer import BaseLayer, WeightHParams, WeightInit, instance_field, template_field
from praxis.layers import repeats

KEY = jax.random.PRNGKey(5)
X = jnp.ones([3])
LayerTpl = pax_fiddle.Config[BaseLayer]


class Two(BaseLayer):
    """Two drawn variables, one of them not trainable, and noise."""

    names: tuple[str, str] = ("w", "b")
    noise: bool = False

    def setup(self) -> None:
        hparams = WeightHParams([3], init=WeightInit.Gaussian())
        for name, trainable in zip(self.names, (True, False), strict=True):
            self.create_variable(name, hparams, trainable=trainable)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.noise:
            x = x + jax.random.normal(self.next_prng_key(), x.shape)
        return x * self.theta[self.names[0]]


class Owner(BaseLayer):
    """Calls children made from a template and held in fields, perhaps in a transformation."""

    child_name: str = "a"
    child_tpl: LayerTpl = template_field(Two)
    many: list[BaseLayer] = instance_field(list)
    transform: str = "none"

    def setup(self) -> None:
        self.create_child(self.child_name, self.child_tpl)

    def __call__(self, x: jax.Array) -> jax.Array:
        def call(layer: Any, x: jax.Array) -> jax.Array:
            return layer(x)

        if self.transform == "remat":
            call = nn.remat(call)
        elif self.transform == "vmap":
            metadata = {
                "is_initializing": self.is_initializing(),
                "x_times": 2,
                "sub_weight_split_dims_mapping": None,
                "optimizer_dims_mapping": None,
            }
            call = nn.vmap(
                call,
                in_axes=None,  # pyright: ignore[reportArgumentType]
                variable_axes={"params": 0, "non_trainable": 0},
                split_rngs={"params": True},
                axis_size=2,
                metadata_params=metadata,
            )
        for layer in (getattr(self, self.child_name), *self.many):
            x = call(layer, x)
        return x


def drawn(path, count, key=KEY):
    """The normal draw of a variable, from its path and the number of the draw in its layer."""
    data = "".join(path).encode() + bytes([count])
    number = int.from_bytes(hashlib.sha1(data).digest()[:4], "big")
    return jax.random.normal(jax.random.fold_in(key, np.uint32(number)), [3])


def init(config):
    return pax_fiddle.build(config).init(KEY, X)


def owner(**fields):
    return init(pax_fiddle.Config(Owner, name="root", **fields))


def test_draws_of_a_layer_count_in_order():
    """Behaviour 72: trainable or not; neither names nor the root's name matter."""
    for names in (("w", "b"), ("other", "word")):
        variables = init(pax_fiddle.Config(Two, name="any", names=names))
        np.testing.assert_array_equal(variables["params"][names[0]], drawn([], 1))
        np.testing.assert_array_equal(variables["non_trainable"][names[1]], drawn([], 2))


def test_children_draw_by_their_path():
    """Behaviour 72: renaming a child changes its values."""
    params = owner(many=[pax_fiddle.Config(Two)])["params"]
    np.testing.assert_array_equal(params["a"]["w"], drawn(["a"], 1))
    np.testing.assert_array_equal(params["many_0"]["w"], drawn(["many_0"], 1))
    params = owner(child_name="other")["params"]
    np.testing.assert_array_equal(params["other"]["w"], drawn(["other"], 1))


def test_rematerialization_changes_no_key():
    """Behaviour 73."""
    jax.tree.map(np.testing.assert_array_equal, owner(transform="remat"), owner())


def test_keys_under_vmap():
    """Behaviour 73: the root key is split; paths and counts stay."""
    variables = owner(transform="vmap")
    for i, key in enumerate(jax.random.split(KEY, 2)):
        np.testing.assert_array_equal(variables["params"]["a"]["w"][i], drawn("a", 1, key))
        np.testing.assert_array_equal(variables["non_trainable"]["a"]["b"][i], drawn("a", 2, key))


def loop(sub, x_times):
    return pax_fiddle.Config(repeats.Repeat, name="loop", sub_tpl=sub, x_times=x_times)


def test_keys_under_scan():
    """Behaviour 73: the body is traced once before, so its two draws come third and fourth."""
    variables = init(loop(pax_fiddle.Config(Two), 3))
    for i, key in enumerate(jax.random.split(KEY, 3)):
        np.testing.assert_array_equal(variables["params"]["sub"]["w"][i], drawn(["sub"], 3, key))
        value = variables["non_trainable"]["sub"]["b"][i]
        np.testing.assert_array_equal(value, drawn(["sub"], 4, key))


def test_keys_under_nested_scan():
    """Behaviour 73: three traces before, two keys split one after the other."""
    params = init(loop(loop(pax_fiddle.Config(Two), 2), 3))["params"]
    for i, outer in enumerate(jax.random.split(KEY, 3)):
        for j, key in enumerate(jax.random.split(outer, 2)):
            want = drawn(["sub", "sub"], 7, key)
            np.testing.assert_array_equal(params["sub"]["sub"]["w"][i, j], want)


def test_random_draws_of_a_repeated_layer():
    """Behaviours 73 and 74: the first draw inside a loop is the second."""
    layer = pax_fiddle.build(loop(pax_fiddle.Config(Two, noise=True), 1))
    variables = layer.init(KEY, X)
    got = layer.apply(variables, X, rngs={"random": KEY})
    noise = drawn(["sub"], 2, jax.random.split(KEY, 1)[0])
    want = (X + noise) * variables["params"]["sub"]["w"][0]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("with_random", [True, False])
def test_draws_without_their_stream_count_among_the_variables(with_random):
    """Behaviour 74: a variable made after a draw is the second of the stream they share."""

    class Late(BaseLayer):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + jax.random.normal(self.next_prng_key(), x.shape)
            return x * self.create_variable("w", WeightHParams([3], init=WeightInit.Gaussian()))

    rngs = {"params": KEY} | ({"random": KEY} if with_random else {})
    params = pax_fiddle.build(pax_fiddle.Config(Late, name="late")).init(rngs, X)["params"]
    np.testing.assert_array_equal(params["w"], drawn([], 1 if with_random else 2))


def test_constants_consume_a_draw():
    """Behaviour 72."""

    class ConstantFirst(BaseLayer):
        def setup(self) -> None:
            self.create_variable("c", WeightHParams([3], init=WeightInit.Constant(1.0)))
            self.create_variable("w", WeightHParams([3], init=WeightInit.Gaussian()))

        def __call__(self) -> jax.Array:
            return self.theta.w

    params = base_layer.instantiate(ConstantFirst.config(name="net")).init(KEY)["params"]
    np.testing.assert_array_equal(params["w"], drawn([], 2))

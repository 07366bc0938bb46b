"""Initial values of a user's own: other methods, other fans, and arrays made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import linears

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
KEY = jax.random.PRNGKey(3)


class Heads(base_layer.BaseLayer):
    """A projection to heads, whose fans are named, and a bias that starts negative."""

    input_dims: int = 0
    num_heads: int = 0
    dim_per_head: int = 0
    bias_init: float = 0.0

    def setup(self):
        shape = [self.input_dims, self.num_heads, self.dim_per_head]
        self.create_variable("w", WeightHParams(shape, fan_in_axes=[0], fan_out_axes=[1, 2]))
        init = WeightInit.Constant(self.bias_init)
        self.create_variable("b", WeightHParams(shape[1:], init=init))

    def __call__(self, x):
        return jnp.einsum("BD,DNH->BNH", x, self.theta.w) + self.theta.b[jnp.newaxis]


def init(**fields):
    p = pax_fiddle.Config(
        Heads, name="heads", input_dims=50, num_heads=4, dim_per_head=25, **fields
    )
    return base_layer.instantiate(p).init(KEY, jnp.ones([1, 50]))["params"]


def test_fans_and_bias():
    params = init(bias_init=-4.5)
    limit = np.sqrt(6 / (50 + 100))
    assert 0.99 * limit < np.abs(params["w"]).max() <= 1.00001 * limit
    assert (params["b"] == -4.5).all()


@pytest.mark.parametrize(
    ("params_init", "std"),
    [
        (WeightInit.Gaussian(0.02), 0.02),
        (WeightInit.GaussianSqrtFanIn(), 50**-0.5),
        (WeightInit.TruncatedGaussianSqrtFanOut(2.0), 0.88 * 2.0 * 100**-0.5),
        (pax_fiddle.Config(WeightInit, method="uniform", scale=3**0.5), 1.0),
    ],
    ids=["gaussian", "fan in", "truncated", "a config"],
)
def test_initializer_of_the_layer(params_init, std):
    got = np.std(np.asarray(init(params_init=params_init)["w"]))
    np.testing.assert_allclose(got, std, rtol=0.05)


def test_initializer_of_the_parent_reaches_children_that_chose_none():
    class Parent(base_layer.BaseLayer):
        def setup(self):
            linear_p = pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=3)
            self.create_child("follows", linear_p)
            own = linear_p.clone().set(params_init=WeightInit.Constant(2.0))
            self.create_child("chooses", own)

        def __call__(self, x):
            return self.chooses(self.follows(x))

    p = pax_fiddle.Config(Parent, name="net", params_init=WeightInit.Constant(7.0))
    params = base_layer.instantiate(p).init(KEY, jnp.ones([1, 3]))["params"]
    assert (params["follows"]["w"] == 7.0).all() and (params["chooses"]["w"] == 2.0).all()


def test_values_made_by_hand():
    """`init_var` makes one variable; `orthogonal` comes from JAX and is put in the tree."""
    hparams = WeightHParams([4, 4], WeightInit.Xavier(), jnp.float32)
    value = base_layer.init_var(hparams, KEY, "net/w")
    assert value.shape == (4, 4)
    p = pax_fiddle.Config(linears.Linear, name="net", input_dims=4, output_dims=4)
    layer = base_layer.instantiate(p)
    variables = layer.init(KEY, jnp.ones([1, 4]))
    variables["params"]["w"] = jax.nn.initializers.orthogonal()(KEY, (4, 4))
    out = layer.apply(variables, jnp.eye(4))
    np.testing.assert_allclose(out @ out.T, np.eye(4), atol=1e-6)


def test_unknown_method_names_the_variable():
    with pytest.raises(ValueError, match=r"'w': initializer method 'sparse' is unknown"):
        init(params_init=WeightInit("sparse", 1.0))


def test_method_of_the_user():
    def rows(key, shape, dtype):
        """Each row of its own size."""
        sizes = jnp.arange(1, shape[0] + 1, dtype=dtype).reshape(-1, *[1] * (len(shape) - 1))
        return sizes * jnp.sign(jax.random.normal(key, shape, dtype))

    base_layer.register_init_method("rows_of_test_custom_init", rows)
    w = init(params_init=WeightInit("rows_of_test_custom_init", 0.1))["w"]
    np.testing.assert_allclose(np.abs(w[:, 0, 0]), 0.1 * np.arange(1, 51), rtol=1e-6)

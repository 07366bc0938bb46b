"""The einsum layer: values, true fans, bias and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.einsum import Einsum

KEY = jax.random.PRNGKey(0)


def build(**fields):
    return pax_fiddle.build(pax_fiddle.Config(Einsum, name="layer", **fields))


@pytest.mark.parametrize(
    ("eqn", "x_shape", "w_shape", "fan_in", "fan_out", "bias"),
    [
        ("...D,DNH->...NH", (2, 7), (7, 3, 5), [0], [1, 2], (3, 5)),
        ("...NH,DNH->...D", (2, 3, 5), (7, 3, 5), [1, 2], [0], (7,)),
        ("BD, DNH -> BHN", (2, 7), (7, 3, 5), [0], [1, 2], (5, 3)),
    ],
)
def test_matches_numpy_with_the_true_fans(eqn, x_shape, w_shape, fan_in, fan_out, bias):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, bias))
    layer = build(eqn=eqn, w_shape=w_shape, use_bias=True)
    y = layer.apply({"params": {"w": jnp.float32(w), "b": jnp.float32(b)}}, jnp.float32(x))
    np.testing.assert_allclose(y, np.einsum(eqn, x, w) + b, rtol=2e-5, atol=2e-5)
    meta = layer.abstract_init_with_metadata(jnp.float32(x))["params"]
    assert list(meta["w"].fan_in_axes) == fan_in
    assert list(meta["w"].fan_out_axes) == fan_out
    assert tuple(meta["b"].shape) == bias


def test_bias_is_sharded_as_the_weight():
    layer = build(
        eqn="...D,DNH->...NH",
        w_shape=(7, 3, 5),
        use_bias=True,
        ici_mesh_shape=[1, 1],
        mesh_axis_names=["data", "mdl"],
        weight_split_dims_mapping=pax_fiddle.Config(
            base_layer.BaseLayer.WeightSharding, wt=["data", "mdl", None]
        ),
    )
    meta = layer.abstract_init_with_metadata(jnp.ones([2, 7]))["params"]
    assert list(meta["b"].tensor_split_dims_mapping) == ["mdl", None]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"w_shape": (3,)}, "eqn is '', expected two operands and an output"),
        ({"eqn": "ab,bc", "w_shape": (3, 5)}, "eqn is 'ab,bc', expected two operands"),
        ({"eqn": "ab,bc->ac", "w_shape": (3,)}, r"w_shape is \(3,\), expected one size for each"),
        (
            {"eqn": "ab,bc->ca", "w_shape": (3, 5), "use_bias": True},
            "use_bias needs an output that ends with the letters 'c'",
        ),
    ],
)
def test_errors_name_the_layer_and_the_equation(fields, message):
    with pytest.raises(ValueError, match=f"Einsum 'layer': {message}"):
        build(**fields).init(KEY, jnp.ones([2, 3]))


@pytest.mark.parametrize(
    ("eqn", "shape"), [("...D,DF->...F", (2, 5)), ("BD,DF->BF", (2, 3, 7)), ("BTD,DF->BTF", (7,))]
)
def test_wrong_inputs_name_the_layer_the_equation_and_the_sizes(eqn, shape):
    message = rf"Einsum 'layer': inputs have shape {shape}, expected '[.BTD]+' of eqn = '{eqn}' "
    message = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=message + r"with the sizes {'D': 7, 'F': 3} of w\."):
        build(eqn=eqn, w_shape=(7, 3)).init(KEY, jnp.ones(shape))

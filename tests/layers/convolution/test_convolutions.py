"""Convolutions and poolings against NumPy loops, and what padding may not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import convolutions, poolings
from praxis.layers.model import image_stages, mobilenet

B, T, D = 2, 7, 3


def build(cls, **fields):
    return base_layer.instantiate(pax_fiddle.Config(cls, name="layer", **fields))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scattered(variables):
    """Random values in place of the first ones, so that zeros and ones hide nothing."""
    leaves, tree = jax.tree.flatten(variables)
    return jax.tree.unflatten(
        tree, [jnp.abs(x) + jnp.asarray(np.abs(normal(*x.shape, seed=3)), x.dtype) for x in leaves]
    )


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_conv2d_without_padding_is_a_sum_over_the_window(stride):
    layer = build(
        convolutions.Conv2D,
        filter_shape=(2, 3, 4, 5),
        filter_stride=stride,
        padding="VALID",
        bias=True,
    )
    x = normal(B, 6, 8, 4)
    variables = {"params": {"w": normal(2, 3, 4, 5, seed=1), "b": normal(5, seed=2)}}
    w = np.float64(variables["params"]["w"])
    rows, columns = (6 - 2) // stride[0] + 1, (8 - 3) // stride[1] + 1
    want = np.zeros([B, rows, columns, 5])
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride[0] : i * stride[0] + 2, j * stride[1] : j * stride[1] + 3]
            want[:, i, j] = np.einsum("bhwc,hwcf->bf", window, w)
    got = layer.apply(jax.tree.map(jnp.asarray, variables), jnp.asarray(x))
    np.testing.assert_allclose(got, want + variables["params"]["b"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_depthwise_convolution_keeps_channels_apart(causal):
    layer = build(convolutions.DepthwiseConv1D, filter_shape=(3, D, 1), is_causal=causal)
    x = normal(B, T, D)
    variables = layer.init(jax.random.key(0), jnp.asarray(x), jnp.zeros([B, T]))
    w = np.float64(variables["params"]["w"]).reshape(3, D)
    before = 2 if causal else 1
    wide = np.pad(np.float64(x), [(0, 0), (before, 2 - before), (0, 0)])
    want = sum(wide[:, k : k + T] * w[k] for k in range(3))
    got = layer.apply(variables, jnp.asarray(x), jnp.zeros([B, T]))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


SEQUENCE_LAYERS = {
    "depthwise": lambda: build(convolutions.DepthwiseConv1D, filter_shape=(3, D, 1), bias=True),
    "light": lambda: build(convolutions.LightConv1D, input_dims=D, kernel_size=3),
    "mean": lambda: build(poolings.Pooling1D, window=3, stride=2),
    "max": lambda: build(poolings.Pooling1D, window=3, stride=2, pooling_type="MAX"),
}


@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_content_of_padding_does_not_matter(name):
    layer = SEQUENCE_LAYERS[name]()
    x, paddings = jnp.asarray(normal(B, T, D)), jnp.zeros([B, T]).at[:, 4:].set(1)
    variables = scattered(layer.init(jax.random.key(0), x, paddings))
    outputs = [
        layer.apply(variables, jnp.where(paddings[..., None] > 0, content, x), paddings)
        for content in (0.0, 1e3)
    ]
    first, second = (out[0] if isinstance(out, tuple) else out for out in outputs)
    valid = 2 if first.shape[1] < T else 4  # a stride of 2 halves the length
    np.testing.assert_allclose(first[:, :valid], second[:, :valid], rtol=2e-5, atol=2e-5)


IMAGE_LAYERS = {
    "conv": lambda: build(
        convolutions.ConvBNActWithPadding, filter_shape=(3, 3, D, 4), filter_stride=(2, 1)
    ),
    "mean": lambda: build(
        poolings.Pooling, window_shape=(3, 2), window_stride=(2, 2), pooling_type="AVG"
    ),
    "max": lambda: build(poolings.Pooling, window_shape=(3, 2), window_stride=(2, 2)),
}


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_content_of_padded_rows_does_not_matter(name):
    layer = IMAGE_LAYERS[name]()
    x, paddings = jnp.asarray(normal(B, T, 6, D)), jnp.zeros([B, T]).at[:, 4:].set(1)
    variables = scattered(layer.init(jax.random.key(0), x, paddings))
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        outputs = [
            layer.apply(variables, jnp.where(paddings[..., None, None] > 0, content, x), paddings)
            for content in (0.0, 1e3)
        ]
    (first, padded), (second, _) = outputs
    keep = (padded == 0)[..., None, None]
    np.testing.assert_allclose(
        jnp.where(keep, first, 0), jnp.where(keep, second, 0), rtol=2e-5, atol=2e-5
    )
    assert bool(jnp.any(keep))
    np.testing.assert_array_equal(jnp.where(keep, 0, first), jnp.zeros_like(first))


def test_mean_of_a_window_leaves_padded_rows_out():
    layer = build(poolings.Pooling, window_shape=(2, 1), window_stride=(2, 1), pooling_type="AVG")
    x = jnp.asarray([2.0, 4.0, 6.0, 100.0]).reshape(1, 4, 1, 1)
    outputs, paddings = layer.apply({}, x, jnp.asarray([[0.0, 0.0, 0.0, 1.0]]))
    # The second window meets padding, so it is padding, and 0.
    np.testing.assert_allclose(outputs[0, :, 0, 0], [3.0, 0.0])
    np.testing.assert_allclose(paddings, [[0.0, 1.0]])


def test_templates_of_image_models_are_not_shared():
    first = mobilenet.MobileNet.config()
    first.output_spatial_pooling_params.keepdims = True
    assert not mobilenet.MobileNet.config().output_spatial_pooling_params.keepdims
    assert not image_stages.SPATIAL_POOLING.keepdims


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (convolutions.Conv2D, {"filter_shape": (3, 3, 0, 4)}, r"Conv2D 'layer': .*filter_shape"),
        (poolings.GlobalPooling, {}, r"GlobalPooling 'layer': pooling_dims is None"),
        (poolings.Pooling, {"pooling_type": "SUM"}, r"Pooling 'layer': "),
    ],
)
def test_wrong_fields_are_named(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        build(cls, **fields).init(jax.random.key(0), jnp.zeros([1, 6, 6, 3]))

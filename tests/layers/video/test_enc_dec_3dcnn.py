"""Parts of video networks against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from praxis import pax_fiddle
from praxis.layers.video import enc_dec_3dcnn as parts
from praxis.layers.video.blur import binomial_kernel

KEY = jax.random.PRNGKey(0)
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def build(cls, **fields):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="x", **fields))


def made(layer, x):
    """Random parameters."""
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(layer.init, KEY, x)["params"]
    return jax.tree.map(lambda leaf: jnp.float32(rng.standard_normal(leaf.shape) / 2), shapes)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_depth_to_space_lays_out_frame_row_column_then_channel():
    """Behaviour "depth_to_space" of the video layers."""
    ts, f = 3, 5
    x = numbers(2, 2, 3, 4, ts * 2 * 2 * f)
    y = np.asarray(parts.depth_to_space(jnp.float32(x), ts, f))
    assert y.shape == (2, 2 * ts, 6, 8, f)
    for frame, row, column, channel in ((0, 0, 0, 0), (4, 3, 5, 2), (2, 5, 6, 4)):
        depth = ((frame % ts * 2 + row % 2) * 2 + column % 2) * f + channel
        close(y[:, frame, row, column, channel], x[:, frame // ts, row // 2, column // 2, depth])


def test_depth_to_space_names_the_channels_it_expects():
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 1, 7\).* = 2 \* 4 \* 3 = 24"):
        parts.depth_to_space(jnp.ones([1, 1, 1, 1, 7]), 2, 3)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scan_function_joins_the_results_of_slices(axis):
    x = jnp.float32(numbers(2, 3, 5))
    seen = []

    def double(part):
        seen.append(part.shape)
        return jnp.concatenate([part, 2 * part], axis=axis)

    y = parts.scan_function(double, in_axis=axis)(x)
    want = np.stack([x, 2 * x], axis=axis % 3 + 1)
    shape = list(x.shape)
    shape[axis] *= 2
    close(y, want.reshape(shape))
    shape[axis] = 1
    assert set(seen) == {tuple(shape)}


@pytest.mark.parametrize(
    ("size", "stride"), [((3, 3, 3), (1, 1, 1)), ((4, 4, 4), (2, 2, 2)), ((2, 3, 4), (2, 1, 2))]
)
def test_causal_conv_repeats_borders(size, stride):
    x, w, b = numbers(2, 5, 4, 6, 2), numbers(*size, 2, 3, seed=1), numbers(3, seed=2)
    layer = build(parts.CausalConv, filter_shape=(*size, 2, 3), filter_stride=stride)
    y = layer.apply({"params": {"w": jnp.float32(w), "b": jnp.float32(b)}}, jnp.float32(x))
    space = [((k - 1) // 2, k // 2) for k in size[1:]]
    padded = np.pad(x, [(0, 0), (size[0] - 1, 0), *space, (0, 0)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2, 3))
    windows = windows[:, :: stride[0], :: stride[1], :: stride[2]]
    close(y, np.einsum("bthwcijk,ijkcf->bthwf", windows, w) + b)


def test_causal_conv_refuses_to_pad_twice():
    layer = build(parts.CausalConv, filter_shape=(3, 3, 3, 2, 3), padding="SAME")
    with pytest.raises(ValueError, match=r"CausalConv 'x': padding is 'SAME', expected 'VALID'"):
        layer.init(KEY, jnp.ones([1, 2, 3, 3, 2]))


def normalised(x, groups):
    """Group normalization of each frame [B, T, H, W, D]."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    mean = grouped.mean((2, 3, 5), keepdims=True)
    variance = grouped.var((2, 3, 5), keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)


def test_group_norm_spatial_takes_moments_of_frames_and_ignores_paddings():
    x, gamma, beta = numbers(2, 3, 4, 5, 6), numbers(6, seed=1), numbers(6, seed=2)
    layer = build(parts.GroupNormSpatial, dim=6, num_groups=3)
    params = {"gamma": gamma.reshape(1, 1, 1, 6), "beta": beta.reshape(1, 1, 1, 6)}
    variables = {"params": jax.tree.map(jnp.float32, params)}
    y = layer.apply(variables, jnp.float32(x), jnp.ones([2, 3]))
    close(y, normalised(x, 3) * (1 + gamma) + beta)
    with pytest.raises(
        ValueError, match=r"'x': inputs have shape \(2, 3, 6\), expected rank.* = 5"
    ):
        layer.apply(variables, jnp.ones([2, 3, 6]))


def test_cond_norm_scales_and_shifts_by_the_embedding():
    x, emb = numbers(2, 3, 4, 5, 6), numbers(2, 3, 4, 5, 7, seed=1)
    layer = build(parts.CondNormLayer, dim=6, emb_dim=7)
    made = jax.eval_shape(layer.init, KEY, jnp.float32(x), jnp.float32(emb))["params"]
    assert set(made) == {"gamma_linear", "gamma_bias", "beta_linear", "beta_bias"}
    params = jax.tree.map(lambda leaf: jnp.float32(numbers(*leaf.shape, seed=leaf.size)), made)
    y = layer.apply({"params": params}, jnp.float32(x), jnp.float32(emb))
    gamma, beta = (
        emb @ np.float64(params[f"{name}_linear"]["w"]) + np.float64(params[f"{name}_bias"]["b"])
        for name in ("gamma", "beta")
    )
    close(y, normalised(x, 6) * (1 + gamma) + beta, atol=1e-4)  # sums of 7 products
    with pytest.raises(ValueError, match=r"'x': emb has shape \(2, 3, 4, 5, 6\), expected .*7"):
        layer.apply({"params": params}, jnp.float32(x), jnp.float32(x))


@pytest.mark.parametrize(("wide", "size"), [(False, 1), (True, 3)])
def test_res_block_adds_a_shortcut(wide, size):
    x = jnp.float32(numbers(2, 3, 4, 5, 2))
    layer = build(parts.ResBlock, input_dim=2, output_dim=3, use_conv_shortcut=wide)
    params = made(layer, x)
    assert params["conv_shortcut"]["w"].shape == (size, size, size, 2, 3)
    assert set(params["conv_0"]) == {"w"}
    # With a convolution that gives 0, the shortcut is all that is left.
    zero = jax.tree.map(jnp.zeros_like, params["conv_1"])
    y = jax.jit(layer.apply)({"params": {**params, "conv_1": zero}}, x)
    conv = build(parts.CausalConv, filter_shape=(size, size, size, 2, 3), bias=False)
    close(y, conv.apply({"params": params["conv_shortcut"]}, x))


def test_res_block_without_a_change_of_width():
    x = jnp.float32(numbers(1, 2, 3, 3, 2))
    layer = build(parts.ResBlock, input_dim=2, output_dim=2)
    params = made(layer, x)
    assert set(params) == {"norm_0", "conv_0", "norm_1", "conv_1"}
    hidden = np.float64(x)
    for i in range(2):
        scale, shift = (np.float64(params[f"norm_{i}"][name]) for name in ("gamma", "beta"))
        hidden = normalised(hidden, 2) * (1 + scale) + shift
        hidden = hidden * special.expit(hidden)
        conv = build(parts.CausalConv, filter_shape=(3, 3, 3, 2, 2), bias=False)
        hidden = np.float64(conv.apply({"params": params[f"conv_{i}"]}, jnp.float32(hidden)))
    close(layer.apply({"params": params}, x), x + hidden, atol=1e-4)  # moments of 9 pixels
    with pytest.raises(ValueError, match=r"'x': inputs have shape .*, 3\).*C = input_dim = 2"):
        layer.init(KEY, jnp.ones([1, 2, 3, 3, 3]))


def test_binomial_kernels_sum_to_1():
    close(binomial_kernel(3)[1, 1], np.array([1, 2, 1]) / 16)
    for size in range(2, 8):
        kernel = binomial_kernel(size)
        assert kernel.shape == (size,) * 3
        close(kernel.sum(), 1)
        close(kernel, kernel[::-1].swapaxes(0, 1))


def test_blur_pool_blurs_each_channel():
    x = numbers(2, 5, 7, 9, 3)
    y = build(parts.BlurPool3D).apply({}, jnp.float32(x))
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(1, 2, 3))
    want = np.einsum("bthwcijk,ijk->bthwc", windows[:, ::2, ::2, ::2], binomial_kernel(3))
    close(y, want)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"filter_size": 8}, "filter_size is 8, expected 2 to 7"),
        ({"strides": (2, 2, 0)}, r"strides is \(2, 2, 0\), expected 3 steps"),
        ({"padding": "FULL"}, "padding is 'FULL'"),
    ],
)
def test_blur_pool_refuses(fields, error):
    with pytest.raises(ValueError, match=f"BlurPool3D 'x': {error}"):
        build(parts.BlurPool3D, **fields).apply({}, jnp.ones([1, 2, 2, 2, 1]))


def test_discriminator_block_halves_and_keeps_the_variance():
    x = jnp.float32(numbers(2, 3, 4, 5, 2))
    layer = build(parts.DiscriminatorResBlock, input_dim=2, output_dim=3)
    params = made(layer, x)

    def conv(params, x):
        size = params["w"].shape
        layer = build(parts.CausalConv, filter_shape=size, bias=False)
        wide = jnp.pad(x, [(0, 0), *[(1, 1)] * 3, (0, 0)]) if size[0] == 3 else x
        # Zeros around, in place of copies of the borders.
        y = layer.apply({"params": params}, wide)
        return y[:, 2:, 1:-1, 1:-1] if size[0] == 3 else y

    def act(x):
        return jnp.where(x >= 0, x, 0.2 * x)

    pool = functools.partial(build(parts.BlurPool3D).apply, {})
    branch = act(conv(params["conv_1"], pool(act(conv(params["conv_0"], x)))))
    y = layer.apply({"params": params}, x)
    assert y.shape == (2, 2, 2, 3, 3)
    close(y, (branch + conv(params["conv_residual"], pool(x))) / np.sqrt(2))

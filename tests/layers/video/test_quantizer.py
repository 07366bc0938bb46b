"""Quantizers without a codebook against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.video import quantizer

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def lookup_free(**fields):
    return pax_fiddle.build(pax_fiddle.Config(quantizer.LookupFreeQuantizer, name="lfq", **fields))


def scalar(**fields):
    return pax_fiddle.build(pax_fiddle.Config(quantizer.ScalarQuantizer, name="fsq", **fields))


def numbers(*shape, seed=0, scale=1.0):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape) * scale)


def run(layer, *args, **kwargs):
    """`layer.apply` as one compiled program."""
    return jax.jit(lambda args: layer.apply({}, *args, **kwargs))(args)


def entropies(x, temperature):
    """Of the codes of each row of [N, D] on average, and of all of them."""
    bits = np.arange(2 ** x.shape[1])[:, None] >> np.arange(x.shape[1]) & 1
    codes = 2 * bits - 1
    distances = np.square(np.asarray(x, np.float64)[:, None] - codes).sum(-1)
    probs = np.exp(-(distances - distances.min(-1, keepdims=True)) / temperature)
    probs /= probs.sum(-1, keepdims=True)
    mean = probs.mean(0)
    logs = np.log(np.maximum(probs, 1e-300))
    return -(probs * logs).sum(-1).mean(), -(mean * np.log(mean + 1e-5)).sum()


@pytest.mark.parametrize("groups", [1, 2])
def test_lookup_free_losses(groups):
    """Behaviour "LFQ losses" of the video layers."""
    x = numbers(2, 3, 4)
    layer = lookup_free(
        embedding_dim=4,
        entropy_temperature=0.7,
        entropy_loss_balance=0.3,
        entropy_loss_groups=groups,
    )
    _, result = run(layer, x)
    signs = np.where(np.asarray(x) >= 0, 1, -1)
    close(result.e_latent_loss, 0.25 * ((signs - np.float64(x)) ** 2).mean())
    parts = np.split(np.asarray(x).reshape(-1, 4), groups, axis=1)
    found = [entropies(part, 0.7) for part in parts]
    close(result.entropy_loss, 0.1 * sum(one - 0.3 * batch for one, batch in found))
    close(result.quantizer_loss, result.e_latent_loss + result.entropy_loss)


def test_lookup_free_hard_entropy_counts_nearest_codes():
    x = jnp.array([[0.4, 0.3], [-0.1, 0.2], [0.1, 0.9], [-2.0, -1.0]])
    layer = lookup_free(embedding_dim=2, entropy_loss_type="argmax", entropy_temperature=1e-3)

    def loss(x):
        return layer.apply({}, x)[1].entropy_loss

    counts = np.array([2, 1, 1]) / 4
    value, gradient = jax.jit(jax.value_and_grad(loss))(x)
    close(value, 0.1 * (counts * np.log(counts)).sum(), atol=1e-4)  # the codes are nearly certain
    assert np.all(np.isfinite(gradient))


def test_lookup_free_passes_gradients_in_training_only():
    x = jnp.array([[0.0, -0.5, 2.0]])
    layer = lookup_free(embedding_dim=3)

    def signs(x):
        quantized, result = layer.apply({}, x)
        return jnp.vdot(quantized, jnp.array([[1.0, 2.0, 3.0]])), (quantized, result)

    gradient, (quantized, result) = jax.jit(jax.grad(signs, has_aux=True))(x)
    close(quantized, [[1, -1, 1]])
    close(gradient, [[1, 2, 3]])
    assert result.encoding_indices.tolist() == [5] and result.encoding_indices.dtype == jnp.uint32
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        gradient, (_, result) = jax.jit(jax.grad(signs, has_aux=True))(x)
    close(gradient, 0 * x)
    assert set(result) == {"encodings", "encoding_indices", "raw"}


@pytest.mark.parametrize(("groups", "width"), [(1, 5), (2, 3), (3, 2), (5, 1)])
def test_lookup_free_indices_are_bits_and_decode(groups, width):
    """Behaviour "ids -> decode" of the video layers: bit i counts 2^(i mod the group)."""
    x = numbers(2, 3, 5)
    layer = lookup_free(embedding_dim=5, num_token_groups=groups)
    quantized, result = run(layer, x)
    want = np.zeros([2, 3, groups], int)
    for i in range(5):
        want[..., i // width] += (np.asarray(x)[..., i] >= 0) * 2 ** (i % width)
    ids = result.encoding_indices
    np.testing.assert_array_equal(ids.reshape(want.shape), want)
    assert ids.ndim == (2 if groups == 1 else 3)
    close(run(layer, ids.astype(jnp.int32), method="decode_ids"), quantized)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"embedding_dim": 4, "num_token_groups": 3}, "num_token_groups = 3 of 2 bits"),
        ({"embedding_dim": 36}, "embedding_dim = 36.* of 36 bits, more than 32"),
        ({"entropy_loss_groups": 3}, "embedding_dim = 8 is not a multiple of .* = 3"),
        ({"embedding_dim": 24}, r"2\*\*24 codes.* Set entropy_loss_groups, now 1"),
        ({"entropy_loss_type": "mean"}, "entropy_loss_type is 'mean', expected one of"),
    ],
)
def test_lookup_free_refuses(fields, error):
    layer = lookup_free(**fields)
    with pytest.raises(ValueError, match=f"LookupFreeQuantizer 'lfq': .*{error}"):
        layer.apply({}, jnp.ones([2, layer.embedding_dim]))


def test_lookup_free_without_entropy_takes_many_bits():
    layer = lookup_free(embedding_dim=32, entropy_loss_ratio=0.0)
    _, result = layer.apply({}, jnp.ones([2, 32]))
    assert result.encoding_indices.tolist() == [2**32 - 1] * 2
    close(result.quantizer_loss, 0)


def test_lookup_free_decode_names_the_groups():
    layer = lookup_free(embedding_dim=4, num_token_groups=2)
    with pytest.raises(ValueError, match=r"'lfq': inputs have shape \(3,\).*num_token_groups = 2"):
        layer.apply({}, jnp.zeros([3], jnp.int32), method="decode_ids")


@pytest.mark.parametrize(("method", "bound"), [("sine", np.sin), ("tanh", np.tanh)])
def test_scalar_levels_indices_and_gradients(method, bound):
    widths = np.array([8, 5, 2])
    layer = scalar(embedding_dim=3, dim_widths=(8, 5, 2), bound_method=method)
    x = numbers(3, 5, 3, scale=2.0)
    quantized, result = run(layer, x)
    raw = bound(np.float64(x)) * widths * 0.999 / 2
    offset = np.array([0.5, 0, 0.5])
    levels = np.round(raw - offset) + offset
    close(result.raw, raw)
    close(quantized, levels)
    digits = (levels + (widths - 1) / 2).astype(int)
    assert digits.min() >= 0 and np.all(digits < widths)
    np.testing.assert_array_equal(result.encoding_indices, digits @ np.array([10, 2, 1]))
    close(run(layer, result.encoding_indices, method="decode_ids"), levels)
    assert float(result.quantizer_loss) == 0.0
    gradient = jax.jit(jax.grad(lambda x: layer.apply({}, x)[0].sum()))(x)
    slope = np.cos(np.float64(x)) if method == "sine" else 1 - np.tanh(np.float64(x)) ** 2
    close(gradient, slope * widths * 0.999 / 2)


def test_scalar_knows_every_code():
    layer = scalar(embedding_dim=2, dim_widths=(3, 4))
    codes = np.asarray(layer.apply({}, jnp.arange(12), method="decode_ids"))
    want = [[a, b] for a in (-1, 0, 1) for b in (-1.5, -0.5, 0.5, 1.5)]
    close(codes, want)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"embedding_dim": 3}, "dim_widths is .*, expected embedding_dim = 3 numbers"),
        ({"dim_widths": (1,) * 8}, "numbers of at least 2"),
        ({"dim_widths": (64,) * 8}, f"make {64**8} codes"),
        ({"bound_method": "clip"}, "bound_method is 'clip', expected one of"),
    ],
)
def test_scalar_refuses(fields, error):
    with pytest.raises(ValueError, match=f"ScalarQuantizer 'fsq': .*{error}"):
        scalar(**fields).apply({}, jnp.ones([2, 8]))

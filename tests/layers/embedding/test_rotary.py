"""Rotary position embeddings: transformers 5.9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import pax_fiddle
from praxis.layers.embedding.rotary import RotaryPositionalEmbedding, rotate_by_position

RNG = np.random.default_rng(0)


def build(dims=8, **fields):
    config = pax_fiddle.Config(
        RotaryPositionalEmbedding, name="rope", embedding_dims=dims, **fields
    )
    return pax_fiddle.build(config)


def random(*shape):
    return jnp.float32(RNG.standard_normal(shape))


def reference(x, position, longest=10_000):
    """Complex rotation, in float64: feature i is the real part, i + H / 2 the imaginary one."""
    half = x.shape[-1] // 2
    timescales = longest ** (np.arange(half) / half)
    angles = np.asarray(position, np.float64)[..., np.newaxis] / timescales
    x = np.asarray(x, np.float64)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


@pytest.mark.parametrize("heads", [(), (3,)])
def test_sequence(heads):
    x = random(2, 5, *heads, 8)
    position = np.array([[9, 13, 14, 17, 1], [14, 7, 16, 3, 3]])
    spread = position.reshape(2, 5, *[1 for _ in heads])
    got = build().apply({}, x, jnp.asarray(position))
    np.testing.assert_allclose(got, reference(x, spread), rtol=2e-5, atol=2e-5)
    by_default = build().apply({}, x)
    counted = np.arange(5).reshape(1, 5, *[1 for _ in heads])
    np.testing.assert_allclose(by_default, reference(x, counted), rtol=2e-5, atol=2e-5)


def test_timescales():
    x = random(2, 5, 8)
    got = build(max_timescale=100).apply({}, x)
    want = reference(x, np.arange(5)[np.newaxis], longest=100)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    slower = build(min_timescale=2, max_timescale=200).apply({}, x)
    want = reference(x, np.arange(5)[np.newaxis] / 2, longest=100)
    np.testing.assert_allclose(slower, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("position", [4, jnp.array([4, 1])], ids=["scalar", "per_example"])
def test_step_equals_a_slice_of_the_sequence(position):
    """Transformers 28: extend_step at position i is row i of the call."""
    x = random(2, 5, 3, 8)
    rows = np.broadcast_to(np.asarray(position), (2,))
    layer = build()
    sequence = layer.apply({}, x)
    want = np.stack([sequence[b, row] for b, row in enumerate(rows)])
    token = jnp.stack([x[b, row] for b, row in enumerate(rows)])  # [B, N, H]
    step = layer.apply({}, token, position, method="extend_step")
    np.testing.assert_allclose(step, want, rtol=2e-5, atol=2e-5)
    headless = layer.apply({}, token[:, 0], position, method="extend_step")  # [B, H]
    np.testing.assert_allclose(headless, want[:, 0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("last", [1, 2, 6])
def test_several_tokens_end_at_the_position_and_start_at_0_at_the_earliest(last):
    x = random(2, 4, 3, 8)
    step = build().apply({}, x, jnp.int32(last), method="extend_step")
    position = np.maximum(last - np.arange(3, -1, -1), 0)
    want = reference(x, position[np.newaxis, :, np.newaxis])
    np.testing.assert_allclose(step, want, rtol=2e-5, atol=2e-5)


def test_step_without_position_is_the_start_of_a_sequence():
    x = random(2, 4, 3, 8)
    layer = build()
    step = layer.apply({}, x, method="extend_step")
    np.testing.assert_array_equal(step, layer.apply({}, x))


@pytest.mark.parametrize(("cast", "dtype"), [(True, jnp.bfloat16), (False, jnp.float32)])
def test_output_dtype(cast, dtype):
    layer = build(fprop_dtype=jnp.bfloat16, cast_as_fprop_dtype=cast)
    assert layer.apply({}, random(2, 5, 8).astype(jnp.bfloat16)).dtype == dtype


@pytest.mark.parametrize("method", ["__call__", "extend_step"])
@pytest.mark.optimized
def test_nothing_grows_with_the_position(method):
    """There is no table: a position of a million needs the arrays of the inputs only."""
    layer = build()
    x = jax.ShapeDtypeStruct((2, 5, 3, 8), jnp.float32)
    shape = (2, 5) if method == "__call__" else (2,)
    step = jax.jit(lambda x, position: layer.apply({}, x, position, method=method))
    memory = step.lower(x, jnp.full(shape, 1_000_000)).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 10 * 2 * 5 * 3 * 8 * 4


@settings(max_examples=50, deadline=None)
@given(
    query=st.integers(0, 2000),
    key=st.integers(0, 2000),
    shift=st.integers(0, 2000),
    seed=st.integers(0, 9),
)
def test_products_depend_on_relative_positions_only(query, key, shift, seed):
    vectors = np.random.default_rng(seed).standard_normal((2, 8)).astype(np.float32)

    def product(offset):
        positions = jnp.array([query + offset, key + offset])
        rotated = rotate_by_position(
            jnp.asarray(vectors), positions, min_timescale=1, max_timescale=10_000
        )
        return jnp.dot(rotated[0], rotated[1])

    # An angle of 4000 radians is known to 2e-4 in float32, times a product of norms of about 8.
    np.testing.assert_allclose(product(shift), product(0), atol=8e-3)


def test_norms_are_kept():
    x = random(2, 5, 3, 8)
    norms = [np.linalg.norm(a, axis=-1) for a in (x, build().apply({}, x))]
    np.testing.assert_allclose(*norms, rtol=2e-5)


@pytest.mark.parametrize("dims", [0, 7])
def test_bad_width(dims):
    message = {0: "embedding_dims is 0", 7: "embedding_dims is 7, expected an even number"}[dims]
    with pytest.raises(ValueError, match=rf"RotaryPositionalEmbedding 'rope'.*{message}"):
        build(dims).apply({}, random(2, 5, 7))


@pytest.mark.parametrize(
    ("shape", "position", "method", "message"),
    [
        ((2, 5, 6), None, "__call__", r"\(2, 5, 6\), expected \[B, T, N, H\].*embedding_dims = 8"),
        ((2, 8), None, "__call__", r"\(2, 8\), expected \[B, T, N, H\]"),
        ((2, 5, 8), [0, 1, 2, 3, 4], "__call__", r"position has shape \(5,\).*\(2, 5\)"),
        ((2, 5, 8), [[0, 1], [0, 1]], "__call__", r"position has shape \(2, 2\).*\(2, 5\)"),
        ((8,), 0, "extend_step", r"\(8,\), expected \[B, N, H\]"),
        ((2, 3, 8), [1, 2, 3], "extend_step", r"position has shape \(3,\).*B = 2"),
    ],
)
def test_bad_shapes(shape, position, method, message):
    position = None if position is None else jnp.asarray(position)
    with pytest.raises(ValueError, match=rf"'rope'.*{message}"):
        build().apply({}, random(*shape), position, method=method)

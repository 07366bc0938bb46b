"""Position embeddings that are added to the inputs: transformers 5.8, 5.10."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import base_ops
from praxis.layers.embedding.position import PositionalEmbedding
from praxis.layers.embedding.position_2d import PositionalEmbedding2D
from praxis.layers.embedding.trainable_position import TrainablePositionalEmbedding

TABLE = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
VARIABLES = {"params": {"emb_var": jnp.asarray(TABLE)}}
POSITION = np.array([[0, 1, 5], [7, 2, 3]])


def build(cls, **fields):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="pos", **fields))


def reference(position, dims, shortest=1, longest=10_000):
    """The formula of transformers 5.8, one number at a time."""
    n = dims // 2
    out = np.zeros((*position.shape, dims))
    for i in range(n):
        frequency = shortest * np.exp(-i * np.log(longest / shortest) / max(n - 1, 1))
        out[..., i] = np.sin(position * frequency)
        out[..., n + i] = np.cos(position * frequency)
    return out


@pytest.mark.parametrize(
    ("dims", "scales"), [(1, (1, 10_000)), (2, (1, 7)), (6, (1, 10_000)), (7, (2, 50))]
)
def test_sinusoids(dims, scales):
    layer = build(
        PositionalEmbedding, embedding_dims=dims, min_timescale=scales[0], max_timescale=scales[1]
    )
    want = reference(POSITION, dims, *scales)
    got = layer.apply({}, position=jnp.asarray(POSITION))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    by_length = layer.apply({}, seq_length=5)
    assert by_length.shape == (1, 5, dims)
    np.testing.assert_array_equal(by_length, layer.apply({}, position=jnp.arange(5)[np.newaxis]))


def test_sinusoids_take_fprop_dtype():
    layer = build(PositionalEmbedding, embedding_dims=4, fprop_dtype=jnp.bfloat16)
    assert layer.apply({}, seq_length=3).dtype == jnp.bfloat16


@pytest.mark.parametrize("transform", ["hwd->(hw)d", "hwd->(wh)d"])
def test_grid(transform):
    layer = build(
        PositionalEmbedding2D,
        h=2,
        w=3,
        embedding_dims=8,
        num_prepend_cls_tokens=1,
        num_append_cls_tokens=2,
        pos_transform=transform,
    )
    got = layer.apply({})
    assert got.shape == (1, 9, 8)
    np.testing.assert_array_equal(got[0, [0, 7, 8]], np.zeros((3, 8)))
    for row in range(2):
        for column in range(3):
            angles = np.array([[row - 1.0], [column - 1.5]]) * [1, 0.01]
            want = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).ravel()
            place = row * 3 + column if transform == "hwd->(hw)d" else column * 2 + row
            np.testing.assert_allclose(got[0, 1 + place], want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("cls", "fields", "kwargs", "message"),
    [
        (PositionalEmbedding, {"embedding_dims": 0}, {"seq_length": 3}, "embedding_dims is 0"),
        (PositionalEmbedding, {}, {}, "neither seq_length nor position"),
        (PositionalEmbedding, {"min_timescale": 0}, {"seq_length": 3}, "min_timescale is 0"),
        (PositionalEmbedding2D, {"h": 0}, {}, "h is 0"),
        (PositionalEmbedding2D, {"embedding_dims": 6}, {}, "is 6, expected a multiple of 4"),
        (PositionalEmbedding2D, {"num_append_cls_tokens": -1}, {}, "num_append_cls_tokens is -1"),
        (PositionalEmbedding2D, {"pos_transform": "hwd->d"}, {}, r"pos_transform is 'hwd->d'"),
        (PositionalEmbedding2D, {}, {"seq_length": 7}, r"seq_length is 7, expected 6: .* 2 \* 3"),
        (TrainablePositionalEmbedding, {"max_seq_length": 0}, {"seq_length": 3}, "length is 0"),
        (TrainablePositionalEmbedding, {}, {}, "neither seq_length nor position"),
        (TrainablePositionalEmbedding, {"lookup_style": "x"}, {"seq_length": 3}, "style is 'x'"),
        (
            TrainablePositionalEmbedding,
            {"max_seq_length": 11},
            {"seq_length": 13},
            "seq_length is 13, expected at most max_seq_length = 11",
        ),
    ],
)
def test_errors_name_the_layer_and_the_field(cls, fields, kwargs, message):
    fields = {"embedding_dims": 4} | ({"h": 2, "w": 3} if "2D" in cls.__name__ else {}) | fields
    with pytest.raises(ValueError, match=rf"{cls.__name__} 'pos'.*{message}"):
        build(cls, **fields).init(jax.random.PRNGKey(0), **kwargs)


def build_trainable(style, **fields):
    fields = {"max_seq_length": 11, "embedding_dims": 3, "lookup_style": style} | fields
    return build(TrainablePositionalEmbedding, **fields)


@pytest.mark.parametrize("style", ["matmul", "index"])
def test_trainable_positions(style):
    layer = build_trainable(style)
    np.testing.assert_array_equal(layer.apply(VARIABLES, 5), TABLE[np.newaxis, :5])
    position = jnp.asarray(POSITION)
    got = layer.apply(VARIABLES, seq_length=11, position=position)
    np.testing.assert_array_equal(got, TABLE[POSITION])
    step = layer.apply(VARIABLES, 11, position[:, 2:].astype(jnp.float32))
    np.testing.assert_array_equal(step, TABLE[POSITION[:, 2:]])


def test_trainable_positions_beyond_the_length():
    """'matmul' gives zeros, and its length is T by default; 'index' has the whole table."""
    position = jnp.asarray(POSITION)
    inside = (POSITION < 3)[..., np.newaxis]
    got = build_trainable("matmul").apply(VARIABLES, position=position)
    np.testing.assert_array_equal(got, np.where(inside, TABLE[POSITION], 0))
    got = build_trainable("index").apply(VARIABLES, position=position)
    np.testing.assert_array_equal(got, TABLE[POSITION])


class LoudEinsum(base_ops.EinsumOp):
    """Negates the product, so that a test sees that it ran."""

    def __call__(self, equation, *args):
        return -super().__call__(equation, *args)


def test_injected_einsum_of_trainable_positions_runs():
    layer = build_trainable("matmul", einsum_tpl=pax_fiddle.Config(LoudEinsum))
    got = layer.apply(VARIABLES, 11, jnp.asarray(POSITION))
    np.testing.assert_allclose(got, -TABLE[POSITION], rtol=2e-5)

"""chunk and unchunk."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers.chunk import chunk, unchunk

X = jnp.arange(2.0 * 7 * 3).reshape(2, 7, 3)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 10])
def test_round_trip(axis, chunk_size):
    """28, chunk: round trip with padding."""
    chunks = chunk(X, chunk_size=chunk_size, axis=axis)
    length = X.shape[axis]
    shape = list(X.shape)
    shape[axis] = chunk_size
    assert chunks.shape == (-(-length // chunk_size), *shape)
    np.testing.assert_array_equal(unchunk(chunks, axis=axis, seqlen=length), X)


def test_chunks_are_in_front_and_filled_up_with_zeros():
    chunks = chunk(X, chunk_size=4)
    np.testing.assert_array_equal(chunks[0], X[:, :4])
    np.testing.assert_array_equal(chunks[1, :, :3], X[:, 4:])
    np.testing.assert_array_equal(chunks[1, :, 3], np.zeros([2, 3]))
    assert unchunk(chunks).shape == (2, 8, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chunk(X, chunk_size=0), "chunk_size is 0, expected at least 1"),
        (lambda: chunk(X, chunk_size=2, axis=3), "(2, 7, 3), which has no axis 3"),
        (lambda: unchunk(X, axis=2), "chunk_x has shape (2, 7, 3), which has no axis 2"),
        (lambda: unchunk(X, axis=1, seqlen=9), "that is 6 entries, but seqlen is 9"),
    ],
    ids=["size", "axis", "unchunk_axis", "length"],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()

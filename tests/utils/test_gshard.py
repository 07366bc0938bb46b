"""Array helpers for expert routing."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis.utils import gshard


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_cum_sum(axis, dtype):
    x = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    sums = np.cumsum(x, axis)
    from_end = np.flip(np.cumsum(np.flip(x, axis), axis), axis)
    array = jnp.asarray(x)
    np.testing.assert_array_equal(gshard.cum_sum(array, axis), sums)
    np.testing.assert_array_equal(gshard.cum_sum(array, axis, exclusive=True), sums - x)
    np.testing.assert_array_equal(gshard.cum_sum(array, axis, reverse=True), from_end)
    got = gshard.cum_sum(array, axis, exclusive=True, reverse=True)
    np.testing.assert_array_equal(got, from_end - x)
    assert got.dtype == dtype


def test_remove_dim():
    assert gshard.remove_dim(1, ["data", None, "mdl"]) == ("data", "mdl")
    assert gshard.remove_dim(-1, ["data", None, "mdl"]) == ("data", None)
    assert gshard.remove_dim(0, None) is None
    with pytest.raises(ValueError, match=r"\('data',\) has no dim 1"):
        gshard.remove_dim(1, ["data"])


def test_top_k():
    values, indices = gshard.top_k(jnp.array([[0.1, 0.7, 0.5], [3.0, 1.0, 2.0]]), 2)
    np.testing.assert_allclose(values, [[0.7, 0.5], [3.0, 2.0]])
    np.testing.assert_array_equal(indices, [[1, 2], [0, 2]])

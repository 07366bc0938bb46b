"""Summaries of stacked layers (behaviour 97 of the core)."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis.flax_utils import maybe_repack_summary, maybe_unpack_summary

TREE = {"loss_scalar": jnp.arange(3.0), "x": {"image": jnp.arange(12.0).reshape(3, 2, 2)}}


def test_unpack_gives_one_array_a_layer_and_repack_stacks_them():
    """Behaviour 97."""
    unpacked = maybe_unpack_summary(TREE, True, 3)
    assert [x.shape for x in unpacked["loss_scalar"]] == [(1,)] * 3
    assert [x.shape for x in unpacked["x"]["image"]] == [(1, 2, 2)] * 3
    repacked = maybe_repack_summary({**unpacked, "other": jnp.ones(2)}, True, 3)
    assert repacked["x"]["image"].shape == (3, 1, 2, 2)
    np.testing.assert_array_equal(repacked["x"]["image"][:, 0], TREE["x"]["image"])
    np.testing.assert_array_equal(repacked["other"], np.ones(2))


def test_without_the_flag_the_tree_comes_back():
    assert maybe_unpack_summary(TREE, False, 3) is TREE
    assert maybe_repack_summary(TREE, False, 3) is TREE


def test_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\), expected .* x_times = 2"):
        maybe_unpack_summary(TREE, True, 2)
    with pytest.raises(ValueError, match="has 3 entries, expected x_times = 2"):
        maybe_repack_summary({"a": [jnp.ones(1)] * 3}, True, 2)

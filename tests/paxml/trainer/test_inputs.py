"""Input arrays on a mesh."""

import jax
import jax.numpy as jnp
import pytest

from paxml.trainer import inputs


def test_a_rank_without_a_split_is_named():
    """Behaviour 109: with the key to add; None leaves arrays of a rank as they are."""
    mapping = {"map_1d": ("data",), "map_2d": None}
    batch = jnp.zeros([2, 3])
    assert inputs.reshard_input_based_on_rank_fn(mapping, ["data"], batch) is batch
    with pytest.raises(ValueError, match=r"no entry 'map_3d', .* array of rank 3 with shape"):
        inputs.reshard_input_based_on_rank_fn(mapping, ["data"], jnp.zeros([2, 3, 5]))


def test_arrays_get_the_split_of_their_rank():
    auto = (jax.sharding.AxisType.Auto,)
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=auto, devices=jax.devices()[:2])):
        split = jax.jit(
            lambda x: inputs.reshard_input_based_on_rank_fn({"map_1d": ("data",)}, ["data"], x)
        )(jnp.zeros([4]))
    assert split.sharding.spec == jax.sharding.PartitionSpec("data")

"""Sharding by mappings: rearranging them, and constraints on a mesh of eight devices."""

import jax
import jax.numpy as jnp
import pytest

from praxis import pax_fiddle
from praxis.layers import linears, sharding

UNCONSTRAINED = jax.sharding.PartitionSpec.UNCONSTRAINED


def mesh():
    axes = (jax.sharding.AxisType.Auto,) * 2
    return jax.set_mesh(jax.make_mesh((2, 4), ("data", "mdl"), axis_types=axes))


@pytest.mark.parametrize(
    ("s", "eqn", "expected"),
    [
        (("data", "mdl"), "ab->ba", ("mdl", "data")),
        (("data", None, ("x", "y")), "btd -> db", (("x", "y"), "data")),
        (("data", "mdl"), "ab->acb", ("data", None, "mdl")),
        (("data", "mdl"), "ab->a?", ("data", UNCONSTRAINED)),
        (None, "ab->ba", None),
    ],
)
def test_derive_picks_by_letter(s, eqn, expected):
    assert sharding.derive(s, eqn) == expected


@pytest.mark.parametrize("eqn", ["ab", "abc->a"])
def test_derive_refuses_an_equation_that_does_not_fit(eqn):
    with pytest.raises(ValueError, match=f"eqn is '{eqn}', expected .* 2 entries"):
        sharding.derive(("data", "mdl"), eqn)


def test_get_dim_sharding():
    assert sharding.get_dim_sharding(("data", "mdl"), -1) == "mdl"
    assert sharding.get_dim_sharding(None, 0) is None


def test_num_shards_on_dim():
    assert sharding.num_shards_on_dim("data") == 1
    with mesh():
        assert sharding.num_shards_on_dim(None) == 1
        assert sharding.num_shards_on_dim("mdl") == 4
        assert sharding.num_shards_on_dim(("data", "mdl")) == 8
        with pytest.raises(ValueError, match="Mesh axis 'x' is unknown"):
            sharding.num_shards_on_dim("x")


def spec_of(function, x):
    """The sharding that a function constrains its result to, as compiled."""
    return jax.jit(function)(x).sharding.spec


@pytest.mark.parametrize(
    ("shape", "eqn", "expected"),
    [
        ((2, 3, 4), None, ("data", None, "mdl")),
        ((2, 3, 4), "btd->b[t]d", ("data", None, "mdl")),
        ((2, 4), "btd->b[t]d", ("data", "mdl")),
        ((4, 2), "btd->db", ("mdl", "data")),
    ],
)
def test_shard_on_a_mesh(shape, eqn, expected):
    with mesh():
        spec = spec_of(lambda x: sharding.shard(x, ("data", None, "mdl"), eqn), jnp.ones(shape))
    assert tuple(spec) == expected


def test_shard_one_dim_leaves_the_others():
    with mesh():
        spec = spec_of(lambda x: sharding.shard_one_dim(x, "mdl", -1), jnp.ones([2, 4]))
    assert spec[1] == "mdl"


def test_without_a_mesh_nothing_happens():
    x = jnp.ones([2, 4])
    assert sharding.shard(x, ("data",), None) is x
    assert sharding.shard_one_dim(x, "mdl", 0) is x


def test_shard_refuses_a_mapping_of_another_rank():
    with mesh(), pytest.raises(ValueError, match=r"shape \(2, 4\) of rank 2.*does not have one"):
        sharding.shard(jnp.ones([2, 4]), ("data", None, "mdl"))


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [
        ((2, 4, 3), None, ("data", None, "mdl")),
        ((2, 3), None, ("data", "mdl")),
        ((2, 3), (None, "mdl"), (None, "mdl")),
    ],
)
def test_output_of_a_decoding_step_has_lost_the_time_axis(shape, step, expected):
    layer = pax_fiddle.build(
        pax_fiddle.Config(
            linears.Linear,
            input_dims=3,
            output_dims=4,
            mesh_axis_names=["data", "mdl"],
            ici_mesh_shape=[2, 4],
            activation_split_dims_mapping=pax_fiddle.Config(
                linears.Linear.ActivationSharding,
                out=("data", None, "mdl"),
                extend_step_out=step,
            ),
        )
    )
    variables = {"params": {"w": jnp.ones([3, 4])}}
    with mesh():
        spec = spec_of(lambda x: layer.apply(variables, x), jnp.ones(shape))
    assert tuple(spec) == expected

"""Mistakes with meshes and sharding."""

import jax.numpy as jnp

from docs.situations.examples import declares, linear
from docs.situations.situation import situation
from praxis import (
    base_layer,
    pax_fiddle,
    py_utils,
)

SHARDING = "Meshes and sharding"


@situation(SHARDING, "A sharding with too few entries")
def _() -> None:
    weight = base_layer.WeightHParams([2, 3], tensor_split_dims_mapping=["data"])
    declares(lambda layer: layer.create_variable("w", weight))


@situation(SHARDING, "A mesh axis that does not exist")
def _() -> None:
    base_layer.to_partition_spec(["data", "model"], ["data", "mdl"])


@situation(SHARDING, "The same, asked of a layer")
def _() -> None:
    layer = pax_fiddle.build(linear(ici_mesh_shape=[2, 4], mesh_axis_names=["data", "mdl"]))
    layer.get_shard_count_on_dim("model")


@situation(SHARDING, "An index of a mesh axis that does not exist")
def _() -> None:
    base_layer.to_partition_spec([0, 2], ["data", "mdl"])


@situation(SHARDING, "An array of another rank than its sharding")
def _() -> None:
    base_layer.maybe_shard(jnp.ones([4, 6]), ["data"], ["data", "mdl"])


@situation(SHARDING, "Mesh shape and axis names of different lengths")
def _() -> None:
    base_layer.var_partition_specs({}, [2], ["data", "mdl"])


@situation(SHARDING, "A mesh for more devices than there are")
def _() -> None:
    py_utils.create_device_mesh([64, 1024])

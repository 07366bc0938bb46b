"""Metadata for variables of Flax modules."""

import jax.numpy as jnp
import pytest
from flax.linen import partitioning

from praxis import base_layer
from praxis.flax_utils import convert_to_boxed_params

RULES = (("embed", "data"), ("mlp", ("mdl", "expert")))


def test_arrays_get_their_shape_dtype_and_collections():
    tree = {
        "params": {"a": {"w": jnp.ones([2, 3])}},
        "batch_stats": {"mean": jnp.ones([5], jnp.bfloat16)},
        "cache": {"index": jnp.int32(0)},
    }
    boxed = convert_to_boxed_params(tree, var_collection_map={"cache": ["mine"]})
    w = boxed["params"]["a"]["w"].meta
    assert (list(w.shape), w.dtype, list(w.collections)) == ([2, 3], jnp.float32, [])
    assert w.tensor_split_dims_mapping is None
    mean = boxed["batch_stats"]["mean"].meta
    assert (list(mean.shape), mean.dtype) == ([5], jnp.bfloat16)
    assert base_layer.var_not_trainable(mean)
    assert base_layer.var_requires_mean_sync(mean)
    assert list(boxed["cache"]["index"].meta.collections) == ["mine"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("embed", "mlp"), ["data", ("mdl", "expert")]),
        (("mlp", "other"), [("mdl", "expert"), None]),
        (("embed",), ["data", None]),
    ],
)
def test_axes_collections_are_consumed(names, expected):
    """A variable with fewer names than dims is replicated along the rest."""
    tree = {
        "params": {"a": {"w": jnp.ones([2, 3])}, "b": jnp.ones([3, 2])},
        "params_axes": {"a": {"w_axes": partitioning.AxisMetadata(names)}},
    }
    boxed = convert_to_boxed_params(tree, RULES, [1, 1, 1])
    assert set(boxed) == {"params"}
    assert list(boxed["params"]["a"]["w"].meta.tensor_split_dims_mapping) == expected
    assert list(boxed["params"]["b"].meta.tensor_split_dims_mapping) == [-1, -1]


def test_boxes_stay_as_they_are():
    meta = base_layer.WeightHParams(shape=[2], collections=["mine"])
    kept = base_layer.BoxedParam(value=jnp.ones([2]), meta=meta)
    assert convert_to_boxed_params({"params": {"w": kept}})["params"]["w"] is kept

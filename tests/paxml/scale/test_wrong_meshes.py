"""Meshes and shardings that cannot be are refused before anything is compiled.

Behaviours 48, 49, 50, 109.
"""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import partitioning
from paxml.tools.describe import describe
from paxml.trainer.inputs import reshard_input_based_on_rank_fn
from paxml.trainer.shardings import check_shardings
from praxis import base_layer, pax_fiddle

NAMES = ("replica", "data", "mdl")
WeightHParams = base_layer.WeightHParams


def partitioner_of(mesh, names=NAMES, dcn=None, devices=None):
    task = toy_experiment.variant(MESH=mesh).task()
    task.model.set(mesh_axis_names=names, dcn_mesh_shape=dcn)
    return partitioning.JitPartitioner(task=pax_fiddle.instantiate(task), device_mesh=devices)


@pytest.mark.parametrize(
    ("mesh", "fields", "message"),
    [
        ([1, 3, 1], {}, r"ici_mesh_shape \[1, 3, 1\] needs 3 devices, 8 found. Shapes that fit: "),
        ([8, 1], {}, r"\[8, 1\] and mesh_axis_names \['replica', 'data', 'mdl'\] differ"),
        ([1, 8, 1], {"names": None}, r"\[1, 8, 1\] and mesh_axis_names None differ"),
        ([1, 8, 1], {"names": ("a", "b", "a")}, r"\['a', 'b', 'a'\] has a name twice"),
        ([1, 4, 1], {"dcn": [1, 2, 1]}, r"\[1, 4, 1\] and dcn_mesh_shape \[1, 2, 1\].*no slices"),
        ([1, 4, 1], {"dcn": [2, 1]}, r"\[1, 4, 1\] and dcn_mesh_shape \[2, 1\] differ in length"),
        ([-1, -8, 1], {}, r"ici_mesh_shape \[-1, -8, 1\] has a size below 1"),
        (
            [1, 4, 2],
            {"devices": np.array(jax.devices()).reshape(1, 2, 4)},
            r"mesh replica 1 x data 4 x mdl 2 has another shape than .* given, \[1, 2, 4\]",
        ),
    ],
    ids=["product", "length", "no names", "name twice", "slices", "dcn length", "sign", "given"],
)
def test_a_wrong_mesh_is_refused(mesh, fields, message):
    with pytest.raises(ValueError, match=message):
        partitioner_of(mesh, **fields)


def tree(mapping, shape=(6, 4)):
    hparams = WeightHParams(shape, tensor_split_dims_mapping=mapping, mesh_shape=[1, 4, 2])
    return {"params": {"lm": {"w": hparams}}}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (["date", None], r"asks for mesh axis 'date'.*Did you mean 'data'\?"),
        ([3, None], r"asks for mesh axis 3, but the mesh has the axes \['replica'"),
        (["data", ("mdl", "data")], r"uses the mesh axis 'data' twice"),
    ],
    ids=["unknown", "index", "twice"],
)
def test_a_wrong_sharding_names_the_variable(mapping, message):
    with pytest.raises(ValueError, match=rf"Variable 'params/lm/w' of shape \[6, 4\].*{message}"):
        check_shardings(tree(mapping), [1, 4, 2], NAMES)


def test_much_padding_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        check_shardings(tree(["data", "mdl"]), [1, 4, 2], NAMES)  # 6 rows as 8
        assert not caplog.records
        check_shardings(tree(["data", "mdl"]), [1, 64, 2], NAMES)
    assert "params/lm/w" in caplog.text
    assert "stored padded, as [64, 4]" in caplog.text


def test_an_experiment_with_a_wrong_axis_is_refused_when_it_is_described():
    class Wrong(toy_experiment.Regression):
        def setup(self):
            super().setup()
            self.create_variable(
                "m", WeightHParams([5, 3], tensor_split_dims_mapping=("model", None))
            )

    with pytest.raises(ValueError, match=r"Variable 'params/m'.*mesh axis 'model'"):
        describe(toy_experiment.variant(MODEL=Wrong, MESH=[1, 4, 2]))


def test_a_wrong_split_of_inputs_names_the_entry():
    x = jnp.zeros([8, 3])
    with pytest.raises(ValueError, match=r"inputs_split_mapping has no entry 'map_2d'.*rank 2"):
        reshard_input_based_on_rank_fn({"map_1d": ("data",)}, NAMES, x)
    with pytest.raises(ValueError, match=r"inputs_split_mapping.map_2d: .*mesh axis 'dat'"):
        reshard_input_based_on_rank_fn({"map_2d": ("dat", None)}, NAMES, x)

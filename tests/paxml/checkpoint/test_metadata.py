"""Metadata of a checkpoint (trainer behaviours 36 and 87)."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest

from paxml import checkpoint_metadata as metadata


def shapes(**leaves):
    return SimpleNamespace(mdl_vars={"params": leaves})


WEIGHT = jax.ShapeDtypeStruct((4, 1), jnp.float32)


def describe(version=None, **leaves):
    return metadata.make_metadata(
        version,
        train_state=shapes(**leaves),
        train_state_unpadded_shape_dtype_struct=shapes(**leaves),
    )


def test_file_holds_version_and_variables(tmp_path):
    made = describe(w=WEIGHT, masked=optax.MaskedNode())
    assert not metadata.metadata_exists(tmp_path)
    metadata.save_metadata(tmp_path, made)
    assert metadata.metadata_exists(tmp_path)
    assert json.loads((tmp_path / "metadata" / "metadata").read_text()) == {
        "version": 1.1,
        "train_state_metadata": {
            "mdl_vars": {
                "params": {
                    "w": {
                        "_array_metadata_tag": True,
                        "dtype": "float32",
                        "is_optax_masked_node": False,
                        "unpadded_shape": [4, 1],
                    },
                    "masked": {
                        "_array_metadata_tag": True,
                        "dtype": None,
                        "is_optax_masked_node": True,
                        "unpadded_shape": None,
                    },
                }
            }
        },
    }
    read = metadata.restore_metadata(tmp_path)
    assert read.equals(made)
    assert read.is_compatible(made)


@pytest.mark.parametrize(
    ("other", "compatible"),
    [
        ({"w": jax.ShapeDtypeStruct((4, 1), jnp.float32)}, True),
        ({"w": jax.ShapeDtypeStruct((4, 2), jnp.float32)}, False),
        ({"w": jax.ShapeDtypeStruct((4, 1), jnp.bfloat16)}, False),
        ({"w": optax.MaskedNode()}, False),
        ({"v": jax.ShapeDtypeStruct((4, 1), jnp.float32)}, False),
    ],
)
def test_compatible_iff_same_variables(other, compatible):
    assert describe(w=WEIGHT).is_compatible(describe(**other)) is compatible


def test_versions():
    assert (metadata.get_version(False), metadata.get_version(True)) == (1.1, 1.2)
    assert describe(1.0, w=WEIGHT).to_dict() == {"version": 1.0}
    assert describe(1.0, w=WEIGHT).is_compatible(describe(v=WEIGHT))
    with pytest.raises(ValueError, match=r"format 1\.1 describes the model variables"):
        metadata.make_metadata()


@pytest.mark.parametrize("text", ['{"version": 1.1, "tr', "[]", '{"a": 1}'])
def test_broken_file_is_named(tmp_path, text):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "metadata").write_text(text)
    with pytest.raises(ValueError, match="metadata/metadata is not the metadata of a checkpoint"):
        metadata.restore_metadata(tmp_path)

"""The mesh of devices of a task."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from praxis import base_layer, py_utils

DATA_AXIS = "data"


def make_mesh(model: base_layer.BaseLayer, device_mesh: np.ndarray | None = None) -> Mesh:
    """The mesh that a model asks for; one that asks for none is spread over all devices by batch.

    Args:
      model: Gives `ici_mesh_shape`, `dcn_mesh_shape` and `mesh_axis_names`.
      device_mesh: The devices in the shape of the mesh; found when missing.

    Raises:
      ValueError: if shape and names differ in length, or the devices do not fill the shape.
    """
    if model.ici_mesh_shape is None:
        devices = np.array(jax.devices()) if device_mesh is None else device_mesh.reshape(-1)
        return Mesh(devices, (DATA_AXIS,))
    ici, dcn = model.ici_mesh_shape, model.dcn_mesh_shape
    names = _checked_names(model, ici, dcn)
    if device_mesh is None:
        device_mesh = py_utils.create_device_mesh(
            ici, dcn, contiguous_submeshes=bool(model.contiguous_submeshes)
        )
    return Mesh(np.asarray(device_mesh), names)


def _checked_names(
    model: base_layer.BaseLayer, ici: Sequence[int], dcn: Sequence[int] | None
) -> tuple[str, ...]:
    names = model.mesh_axis_names
    title = f"{type(model).__name__} {model.name!r}"
    if names is None or len(names) != len(ici):
        given = None if names is None else list(names)
        raise ValueError(
            f"{title}: ici_mesh_shape {list(ici)} and mesh_axis_names {given} differ in length. "
            "Give one name for each entry of the shape."
        )
    if dcn is not None and len(dcn) != len(ici):
        raise ValueError(
            f"{title}: ici_mesh_shape {list(ici)} and dcn_mesh_shape {list(dcn)} differ in length."
        )
    return tuple(names)

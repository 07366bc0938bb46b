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
    device_mesh = np.asarray(device_mesh)
    if device_mesh.shape != tuple(model.mesh_shape or ()):
        raise ValueError(
            f"{type(model).__name__} {model.name!r}: its mesh {_named(names, model.mesh_shape)} "
            f"has another shape than the devices that are given, {list(device_mesh.shape)}."
        )
    return Mesh(device_mesh, names)


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
    if len(set(names)) != len(names):
        raise ValueError(
            f"{title}: mesh_axis_names {list(names)} has a name twice. Each axis needs its own."
        )
    for field, shape in (("ici_mesh_shape", ici), ("dcn_mesh_shape", dcn)):
        if shape is not None and min(shape, default=1) < 1:
            raise ValueError(
                f"{title}: {field} {list(shape)} has a size below 1. An axis that is not used has "
                "size 1."
            )
    return tuple(names)


def _named(names: Sequence[str], shape: Sequence[int] | None) -> str:
    return " x ".join(f"{name} {size}" for name, size in zip(names, shape or (), strict=True))

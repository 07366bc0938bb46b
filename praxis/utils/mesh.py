"""Which device mesh is active, and constraints that vanish without one."""

from typing import Any

import jax
from jax._src import mesh as jax_mesh


def global_mesh_defined() -> bool:
    """Returns whether code runs inside `jax.set_mesh(mesh)` or the older `with mesh:`."""
    if not jax.sharding.get_abstract_mesh().empty:
        return True
    # JAX warns about the older form but still runs it, and offers no public way to ask for it.
    return not jax_mesh.thread_resources.env.physical_mesh.empty


def with_sharding_constraint(x: Any, axis_resources: Any) -> Any:
    """Adds a sharding constraint where a mesh is active; returns `x` itself elsewhere."""
    if not global_mesh_defined():
        return x
    return jax.lax.with_sharding_constraint(x, axis_resources)


def active_mesh_axis_sizes() -> dict[str, int]:
    """Returns the size of each axis of the active mesh by name; empty without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        mesh = jax_mesh.thread_resources.env.physical_mesh
    return dict(mesh.shape)

"""Which device mesh is active, and constraints that vanish without one."""

from typing import Any

import jax
from jax._src import mesh as jax_mesh
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec


def global_mesh_defined() -> bool:
    """Returns whether code runs inside `jax.set_mesh(mesh)` or the older `with mesh:`."""
    if not jax.sharding.get_abstract_mesh().empty:
        return True
    # JAX warns about the older form but still runs it, and offers no public way to ask for it.
    return not jax_mesh.thread_resources.env.physical_mesh.empty


def _with_mesh(mesh: jax.sharding.Mesh, axis_resources: Any) -> Any:
    """Specs as shardings on a mesh; other values as they are."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec) if isinstance(spec, PartitionSpec) else spec,
        axis_resources,
        is_leaf=lambda spec: isinstance(spec, PartitionSpec),
    )


def with_sharding_constraint(x: Any, axis_resources: Any) -> Any:
    """Adds a sharding constraint where a mesh is active; returns `x` itself elsewhere."""
    if not global_mesh_defined():
        return x
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x))
    if not traced and not jax.sharding.get_abstract_mesh().empty:
        # Outside of jit JAX refuses a bare spec for an array that is on one device.
        axis_resources = _with_mesh(jax.sharding.get_mesh(), axis_resources)
    return jax.lax.with_sharding_constraint(x, axis_resources)


def active_mesh_axis_sizes() -> dict[str, int]:
    """Returns the size of each axis of the active mesh by name; empty without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        mesh = jax_mesh.thread_resources.env.physical_mesh
    return dict(mesh.shape)

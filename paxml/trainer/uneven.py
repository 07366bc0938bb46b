"""States whose dimensions do not divide over the mesh: stored padded, computed on unpadded."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from paxml.task.state import padded_shape


def pad_state(state: Any, specs: Any, mesh: Mesh) -> Any:
    """Zeros at the end of each dimension up to a multiple of its number of shards."""
    sizes = dict(mesh.shape)

    def pad(leaf: jax.Array, spec: Any) -> jax.Array:
        target = padded_shape(leaf.shape, spec, sizes)
        if target == leaf.shape:
            return leaf
        return jnp.pad(leaf, [(0, new - old) for new, old in zip(target, leaf.shape, strict=True)])

    return jax.tree.map(pad, state, specs)


def slice_state(state: Any, shapes: Any) -> Any:
    """Cuts each leaf to its unpadded shape."""

    def cut(leaf: jax.Array, shape: Any) -> jax.Array:
        if leaf.shape == shape.shape:
            return leaf
        return leaf[tuple(slice(size) for size in shape.shape)]

    return jax.tree.map(cut, state, shapes)

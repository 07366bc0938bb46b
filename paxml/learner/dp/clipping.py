"""Clipping the gradient of one example, and noise on the mean of all."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paxml.learner.scaling import global_norm, scale_to_norm, scaled


def clip_globally(grads: Any, bound: Any) -> tuple[Any, Float[Array, ""]]:
    """Scales a gradient down to a norm of at most `bound`; returns it and its norm before."""
    norm = global_norm(grads)
    scale = scale_to_norm(norm, bound)
    return jax.tree.map(lambda g: scaled(g, scale), grads), norm


def layer_bounds(grads: Any, bound: Any, use_uniform: bool) -> Any:
    """A bound for each leaf; the squares of all sum up to that of `bound`.

    Uniform: bound / sqrt(number of leaves). Else bound * sqrt(size of the leaf / size of all), as
    `optax.per_example_layer_norm_clip`.
    """
    leaves = jax.tree.leaves(grads)
    size = sum(leaf.size for leaf in leaves)

    def share(leaf: jax.Array) -> float:
        return 1.0 / len(leaves) if use_uniform else leaf.size / size

    return jax.tree.map(lambda leaf: bound * math.sqrt(share(leaf)), grads)


def clip_by_layer(grads: Any, bounds: Any) -> tuple[Any, Any]:
    """Scales each leaf down to its own bound; returns them and their norms before."""
    norms = jax.tree.map(global_norm, grads)
    clipped = jax.tree.map(
        lambda g, norm, bound: scaled(g, scale_to_norm(norm, bound)), grads, norms, bounds
    )
    return clipped, norms


def add_noise(grads: Any, stddev: float, key: jax.Array) -> Any:
    """Adds stddev * N(0, 1), drawn for each leaf in float32."""
    leaves, structure = jax.tree.flatten(grads)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        (g + stddev * jax.random.normal(leaf_key, g.shape, jnp.float32)).astype(g.dtype)
        for g, leaf_key in zip(leaves, keys, strict=True)
    )

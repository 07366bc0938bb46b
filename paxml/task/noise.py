"""Variational noise on the weights."""

import re
from typing import Any

import jax
import jax.numpy as jnp

from paxml.task.settings import VariationalNoise
from praxis.utils import trees


def add_variational_noise(
    settings: VariationalNoise, *, step: jax.Array, mdl_vars: Any, key: jax.Array
) -> Any:
    """Adds `vn_scale * N(0, 1)` to the matching variables from `vn_start_step` on.

    Args:
      settings: Scale, start and pattern.
      step: Number of updates already applied.
      mdl_vars: All variables; names are slash-joined, such as `params/lm/softmax/w`.
      key: Split once for each variable, matching or not.

    Raises:
      RuntimeError: if the pattern matches no variable.
    """
    names = jax.tree.leaves(trees.to_path_tree(mdl_vars))
    leaves, structure = jax.tree.flatten(mdl_vars)
    noisy = [re.match(settings.vn_regex, name) is not None for name in names]
    if not any(noisy):
        raise RuntimeError(
            f"vn.vn_regex = {settings.vn_regex!r} matches no variable. It is matched at the start "
            f"of names such as {', '.join(names[:3])}."
        )

    def with_noise(leaf: jax.Array, leaf_key: jax.Array) -> jax.Array:
        noise = settings.vn_scale * jax.random.normal(leaf_key, leaf.shape, leaf.dtype)
        return leaf + jnp.where(step >= settings.vn_start_step, noise, jnp.zeros_like(noise))

    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        with_noise(leaf, leaf_key) if is_noisy else leaf
        for leaf, leaf_key, is_noisy in zip(leaves, keys, noisy, strict=True)
    )

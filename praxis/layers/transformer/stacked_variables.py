"""Variables of a layer that is repeated: as they are stored, and as the loop over it sees them.

The loop sees each variable with one leading axis, of length x_times. Trees here are nested dicts of
arrays, or of boxed arrays.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from praxis import base_layer

Tree = Any


def take_layer(tree: Tree, index: int) -> Tree:
    """The variables of one layer."""
    return jax.tree.map(lambda x: x[index], tree)


def layer_name(index: int) -> str:
    """The name under which the caches of one layer are stored, where they are not stacked."""
    return f"layer{index}"


def unstack_layers(tree: Tree, x_times: int) -> Tree:
    """Stores stacked caches layer by layer, under `layer0`, `layer1`, ..."""
    if not tree:
        return tree
    return {layer_name(i): take_layer(tree, i) for i in range(x_times)}


def sum_aux_losses(tree: Tree, earlier: Tree) -> Tree:
    """Sums the values and weights of stacked losses over layers.

    Args:
      tree: Losses with a leading axis.
      earlier: What was stored before, for some or all of the same losses; added.
    """
    total = jax.tree.map(lambda x: jnp.sum(x, axis=0), tree)
    return _add(total, earlier)


def _add(total: Tree, earlier: Tree) -> Tree:
    is_loss = lambda node: isinstance(node, base_layer.AuxLossStruct)  # noqa: E731
    if is_loss(total):
        return jax.tree.map(jnp.add, total, earlier)
    return {
        name: _add(node, earlier[name]) if name in earlier else node for name, node in total.items()
    }


def merge_prefix(tree: Tree, prefix: Sequence[int]) -> Tree:
    """Merges the leading axes of each variable, of shape `prefix`, into one."""
    x_times = math.prod(prefix)
    flat = _reshape_leading(tree, len(prefix), [x_times])
    return _map_boxes(flat, [x_times])


def split_prefix(tree: Tree, prefix: Sequence[int]) -> Tree:
    """Splits the leading axis of each variable into axes of shape `prefix`."""
    return _map_boxes(_reshape_leading(tree, 1, prefix), prefix)


def _reshape_leading(tree: Tree, num_axes: int, shape: Sequence[int]) -> Tree:
    return jax.tree.map(lambda x: jnp.reshape(x, (*shape, *x.shape[num_axes:])), tree)


def _map_boxes(tree: Tree, prefix: Sequence[int]) -> Tree:
    """Says in the metadata of boxed variables which leading axes they have."""

    def update(box: Any) -> Any:
        if not isinstance(box, base_layer.BoxedParam):
            return box
        meta = copy.copy(box.meta)
        meta.repeat_prefix = list(prefix)
        meta.repeat_prefix_split_dims_mapping = (-1,) * len(prefix)
        meta.repeat_optimizer_dims_mapping = (-1,) * len(prefix)
        return box.replace(meta=meta)

    return jax.tree.map(update, tree, is_leaf=lambda node: isinstance(node, base_layer.BoxedParam))

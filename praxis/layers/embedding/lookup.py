"""Reading rows of an embedding table: the arithmetic, and the checks that every lookup shares.

V is the number of rows, D the width of a row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from praxis import base_layer
from praxis.layers import base_ops
from praxis.layers.embedding.losses import at_least_float32
from praxis.layers.sharding import shard_output

INDEX = "index"
MATMUL = "matmul"
LOOKUP_STYLES = (INDEX, MATMUL)


def gather(table: Float[Array, "V D"], ids: Integer[Array, "*B"]) -> Float[Array, "*B D"]:
    """Rows of `table`: the last one for ids above V - 1, and counted from the end below 0.

    The row gradients of one id are added up in float32: a 16-bit sum loses frequent ids.
    """
    return at_least_float32(table)[ids].astype(table.dtype)


def gather_or_zero(table: Float[Array, "V D"], ids: Integer[Array, "*B"]) -> Float[Array, "*B D"]:
    """Rows of `table`; zeros where an id is outside [0, V).

    Equals `one_hot(ids, V) @ table` without its V * D multiplications a token. Gradients are added
    up in float32, as in the matrix product.
    """
    rows = (
        at_least_float32(table).at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    )
    return rows.astype(table.dtype)


def lookup_rows(
    table: Float[Array, "V D"],
    ids: Integer[Array, "*B"],
    *,
    style: str,
    array_lookup: base_layer.BaseLayer,
    einsum: base_layer.BaseLayer,
) -> Float[Array, "*B D"]:
    """Reads one row for each id, through the op of the layer that owns the table.

    The plain ops are computed by a gather. An op that a config put in their place is called, with
    the product that `style` stands for.

    Args:
      table: [V, D].
      ids: [...].
      style: 'index' indexes the table, so an id above V - 1 reads the last row and a negative one
        counts from the end. 'matmul' gives zeros for ids outside [0, V).
      array_lookup: `(table, ids) -> rows`, of 'index'.
      einsum: `(equation, one_hot, table) -> rows`, of 'matmul'.

    Returns:
      [..., D], in the dtype of the table.
    """
    if style == INDEX:
        if type(array_lookup) is base_ops.ArrayLookup:
            return gather(table, ids)
        return array_lookup(table, ids)
    if type(einsum) is base_ops.EinsumOp:
        return gather_or_zero(table, ids)
    one_hot = jax.nn.one_hot(ids, table.shape[0], dtype=table.dtype)  # [..., V]
    return einsum("...y,yz->...z", one_hot, table)


def check_style(layer: base_layer.BaseLayer, style: str) -> None:
    """Refuses an unknown `lookup_style`.

    Raises:
      ValueError: if `style` is neither 'index' nor 'matmul'.
    """
    if style not in LOOKUP_STYLES:
        raise ValueError(
            f"{layer.path_text}: lookup_style is {style!r}, expected one of {list(LOOKUP_STYLES)}."
        )


def check_ids(layer: base_layer.BaseLayer, ids: Shaped[Array, "*B"]) -> None:
    """Refuses ids that are not integers.

    Raises:
      TypeError: if `ids` have another dtype.
    """
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(
            f"{layer.path_text}: ids have dtype {ids.dtype} and shape {ids.shape}, expected "
            "integers. Cast them, e.g. ids.astype(jnp.int32), or check the order of the arguments."
        )


def shard_rows(layer: base_layer.BaseLayer, rows: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Shards looked up rows by `emb_out_split_dims_mapping` of the layer."""
    return shard_output(layer, rows, field="emb_out_split_dims_mapping")

"""Reading rows of an embedding table: the arithmetic, and the checks that every lookup shares.

V is the number of rows, D the width of a row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from praxis import base_layer
from praxis.layers import base_ops

INDEX = "index"
MATMUL = "matmul"
LOOKUP_STYLES = (INDEX, MATMUL)


def gather_or_zero(table: Float[Array, "V D"], ids: Integer[Array, "*B"]) -> Float[Array, "*B D"]:
    """Rows of `table`; zeros where an id is outside [0, V).

    Equals `one_hot(ids, V) @ table` without its V * D multiplications a token. The row gradients of
    one id are added up in float32, as in the matrix product; a 16-bit sum loses frequent ids.
    """
    wide = table.astype(jnp.promote_types(table.dtype, jnp.float32))
    rows = wide.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    return rows.astype(table.dtype)


def lookup_rows(
    table: Float[Array, "V D"],
    ids: Integer[Array, "*B"],
    *,
    style: str,
    array_lookup: base_layer.BaseLayer,
    einsum: base_layer.BaseLayer,
) -> Float[Array, "*B D"]:
    """Reads one row an id through the op of the layer that owns the table.

    Args:
      table: [V, D].
      ids: [...].
      style: 'index' indexes the table, so an id above V - 1 reads the last row and a negative one
        counts from the end. 'matmul' gives zeros for ids outside [0, V).
      array_lookup: `(table, ids) -> table[ids]`, used by 'index'.
      einsum: `(equation, one_hot, table)`, used by 'matmul' when it is not the plain `EinsumOp`: an
        injected op must see the product, the plain one is computed by a gather.

    Returns:
      [..., D], in the dtype of the table.
    """
    if style == INDEX:
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
    """Shards looked up rows by `emb_out_split_dims_mapping` of the layer.

    In decoding the rows are [B, D] while the mapping is written for [B, T, D]: then
    `extend_step_out` is used where it is set, else the entries of B and D.
    """
    sharding = layer.activation_split_dims_mapping
    mapping = sharding.emb_out_split_dims_mapping
    if rows.ndim == 2:
        if (step_mapping := getattr(sharding, "extend_step_out", None)) is not None:
            mapping = step_mapping
        elif mapping is not None and len(mapping) == 3:
            mapping = [mapping[0], mapping[2]]
    return base_layer.maybe_shard(rows, mapping, layer.mesh_axis_names)

"""Tables of variables."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from praxis.core.weights import WeightHParams, WeightInit
from praxis.inspection.table import Column, Table, size_text, without_empty_columns

_VARIABLE_COLUMNS = (
    Column("variable"),
    Column("shape"),
    Column("dtype"),
    Column("count", is_number=True),
    Column("size", is_number=True),
    Column("init"),
    Column("sharding"),
    Column("collections"),
)


def variable_table(variables: Any) -> Table:
    """Lists the variables of a layer, with their number of elements and size in total.

    Args:
      variables: Tree of WeightHParams, as `abstract_init_with_metadata` returns it, or of arrays,
        as `init` does. Stacked layers count with all their layers.

    Example:
      >>> import jax.numpy as jnp
      >>> print(variable_table({"params": {"w": jnp.ones([4, 3])}}).totals[3])
      12
    """
    rows, counts, sizes = [], 0, 0
    leaves = jax.tree_util.tree_leaves_with_path(
        variables, is_leaf=lambda leaf: isinstance(leaf, WeightHParams)
    )
    for path, leaf in leaves:
        shape = tuple(leaf.full_shape if isinstance(leaf, WeightHParams) else leaf.shape)
        dtype = jnp.dtype(leaf.dtype or jnp.float32)
        count = math.prod(shape)
        counts, sizes = counts + count, sizes + count * dtype.itemsize
        rows.append(
            (
                jax.tree_util.keystr(path, simple=True, separator="/"),
                "x".join(map(str, shape)) or "scalar",
                dtype.name,
                f"{count:,}",
                size_text(count * dtype.itemsize),
                *_origin(leaf),
            )
        )
    totals = (f"{len(rows)} variables", "", "", f"{counts:,}", size_text(sizes), "", "", "")
    return without_empty_columns(_VARIABLE_COLUMNS, rows, totals)


def _origin(leaf: Any) -> tuple[str, str, str]:
    """Texts of initializer, sharding and collections."""
    if not isinstance(leaf, WeightHParams):
        spec = getattr(getattr(leaf, "sharding", None), "spec", None)
        return "", "" if spec is None else _sharding_text(tuple(spec)), ""
    # A dim that is not split is -1 or None.
    mapping = tuple(None if axis == -1 else axis for axis in leaf.full_split_dims_mapping or ())
    collections = (name.strip("_").removeprefix("lingvo_jax_") for name in leaf.collections or ())
    return _init_text(leaf.init), _sharding_text(mapping), ", ".join(collections)


def _sharding_text(mapping: Sequence[Any]) -> str:
    if all(axis is None for axis in mapping):
        return "replicated"
    texts = (
        "+".join(map(str, axis)) if isinstance(axis, list | tuple) else axis for axis in mapping
    )
    return ", ".join("-" if text is None else str(text) for text in texts)


def _init_text(init: WeightInit | None) -> str:
    return "" if init is None else f"{init.method}({init.scale:g})"

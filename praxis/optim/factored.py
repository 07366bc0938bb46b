"""Second moments as products of means over rows and over columns.

Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
arXiv:1804.04235. A variable is seen as matrices over two of its dims, r and c; its other dims are a
batch of them. `vr` holds means over r and so lacks this dim; `vc` lacks c.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from praxis.core.weights import WeightHParams
from praxis.optim.specs import like_variable

FactoredDims = tuple[int, int]  # r, c


def factored_dims(
    shape: Sequence[int], *, factored: bool, sort_dims: bool, min_dim_size_to_factor: int
) -> FactoredDims | None:
    """The dims r and c of a variable; None where its second moment is kept whole.

    Args:
      shape: of the variable.
      factored: False keeps all whole.
      sort_dims: takes the two largest dims, if the second largest is large enough. Else the last
        two, whatever their size.
      min_dim_size_to_factor: what is large enough.
    """
    if not factored or len(shape) < 2:
        return None
    if not sort_dims:
        return len(shape) - 1, len(shape) - 2
    largest, second = np.argsort([-size for size in shape], kind="stable")[:2]
    return (int(largest), int(second)) if shape[second] >= min_dim_size_to_factor else None


def without_dim(shape: Sequence[Any], dim: int) -> tuple[Any, ...]:
    """A shape, or what belongs to its dims, without one of them."""
    return (*shape[:dim], *shape[dim + 1 :])


def spec_without_dim(var_hparams: WeightHParams, dim: int) -> WeightHParams:
    """The description of a float32 array like a variable without one of its dims."""
    spec = like_variable(var_hparams, jnp.float32)
    spec.shape = list(without_dim(var_hparams.shape, dim))
    if var_hparams.tensor_split_dims_mapping is not None:
        spec.tensor_split_dims_mapping = list(
            without_dim(var_hparams.tensor_split_dims_mapping, dim)
        )
    return spec


def running_mean(
    mean: Float[Array, "*shape"], value: Float[Array, "*shape"], decay: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Decay * mean + (1 - decay) * value."""
    return decay * mean + (1.0 - decay) * value


def divide_by_factored_root(
    grad: Float[Array, "..."],
    row_mean: Float[Array, "..."],
    column_mean: Float[Array, "..."],
    dims: FactoredDims,
) -> Float[Array, "..."]:
    """Grad / sqrt(vr vc / mean of vr), the root of the matrix of rank 1 with these means.

    Args:
      grad: the gradient.
      row_mean: vr.
      column_mean: vc.
      dims: r and c.
    """
    row_dim, column_dim = dims
    # The dims after r have moved up by one in vr.
    column_in_row_mean = column_dim - (column_dim > row_dim)
    total = jnp.mean(row_mean, axis=column_in_row_mean, keepdims=True)
    row_factor = jnp.expand_dims((row_mean / total) ** -0.5, row_dim)
    column_factor = jnp.expand_dims(column_mean**-0.5, column_dim)
    return grad * row_factor * column_factor

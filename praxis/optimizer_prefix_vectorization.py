"""Optimizers over stacked layers, gathered under their public path."""

from praxis.optim.prefix import NO_PREFIX_KEY
from praxis.optim.transformation import ShardedGradientTransformation
from praxis.optim.vectorize import (
    get_transformations_with_vectorized_repeat_prefix,
    has_no_prefix,
    partition_params,
)

__all__ = [
    "NO_PREFIX_KEY",
    "ShardedGradientTransformation",
    "get_transformations_with_vectorized_repeat_prefix",
    "has_no_prefix",
    "partition_params",
]

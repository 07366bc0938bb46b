"""Normalization layers and moments, gathered under their public path."""

from praxis.base_layer import PARAMS, PMAP_PARALLEL_AXIS_NAME, WeightHParams, WeightInit
from praxis.layers.normalization.base import BaseNormalization, IdentityNorm
from praxis.layers.normalization.batch import BatchNorm
from praxis.layers.normalization.group import GroupNorm
from praxis.layers.normalization.layer import LayerNorm, RmsNorm, RmsNormNoScale
from praxis.layers.normalization.moments import compute_moments
from praxis.layers.normalization.weight import SpectralNorm, WeightNormL2

__all__ = [
    "PARAMS",
    "PMAP_PARALLEL_AXIS_NAME",
    "BaseNormalization",
    "BatchNorm",
    "GroupNorm",
    "IdentityNorm",
    "LayerNorm",
    "RmsNorm",
    "RmsNormNoScale",
    "SpectralNorm",
    "WeightHParams",
    "WeightInit",
    "WeightNormL2",
    "compute_moments",
]

"""Vector quantizers, gathered under their public path."""

from praxis.base_layer import WeightHParams, WeightInit
from praxis.layers.vector_quantizer.nearest import quantize_vector
from praxis.layers.vector_quantizer.random import RandomVectorQuantizer
from praxis.layers.vector_quantizer.trained import VectorQuantizer

__all__ = [
    "RandomVectorQuantizer",
    "VectorQuantizer",
    "WeightHParams",
    "WeightInit",
    "quantize_vector",
]

"""Quantizers without a codebook, gathered under their public path."""

from praxis.layers.video.lookup_free import LookupFreeQuantizer
from praxis.layers.video.scalar import ScalarQuantizer

__all__ = ["LookupFreeQuantizer", "ScalarQuantizer"]

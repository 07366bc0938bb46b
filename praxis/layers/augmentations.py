"""Layers that change inputs at random, gathered under their public path."""

from praxis.layers.augmentation.masked_lm import MaskedLmDataAugmenter
from praxis.layers.augmentation.temporal_shift import TemporalShifting

__all__ = ["MaskedLmDataAugmenter", "TemporalShifting"]

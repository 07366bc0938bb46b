"""How to generate, gathered under its public path."""

from praxis.decoding.options import (
    BeamSearchHParams,
    DecoderHParams,
    FlatBeamSearchHParams,
    GreedyDecoderHParams,
    SampleDecoderHParams,
)

__all__ = [
    "BeamSearchHParams",
    "DecoderHParams",
    "FlatBeamSearchHParams",
    "GreedyDecoderHParams",
    "SampleDecoderHParams",
]

"""A layer that is repeated in a loop, under its public path."""

from praxis.base_layer import (
    AUX_LOSS,
    DECODE_CACHE,
    HYPER_PARAMS,
    INTERMEDIATES,
    NON_TRAINABLE,
    PARAMS,
    PREFIX_DECODE_CACHE,
    RANDOM,
    SUMMARIES,
)
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.layers.transformer.repeat import Repeat

__all__ = [
    "AUX_LOSS",
    "DECODE_CACHE",
    "HYPER_PARAMS",
    "INTERMEDIATES",
    "NON_TRAINABLE",
    "PARAMS",
    "PREFIX_DECODE_CACHE",
    "RANDOM",
    "SUMMARIES",
    "AutodiffCheckpointType",
    "Repeat",
]

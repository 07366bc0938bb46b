"""Pipelined layers, under their public path."""

from praxis.base_layer import (
    AUX_LOSS,
    HYPER_PARAMS,
    INTERMEDIATES,
    NON_TRAINABLE,
    PARAMS,
    RANDOM,
    SUMMARIES,
)
from praxis.layers.transformer.circular_pipeline import CircularLayerwiseShardablePipelined
from praxis.layers.transformer.pipeline import LayerwiseShardablePipelined
from praxis.layers.transformer.remat import AutodiffCheckpointType

__all__ = [
    "AUX_LOSS",
    "HYPER_PARAMS",
    "INTERMEDIATES",
    "NON_TRAINABLE",
    "PARAMS",
    "RANDOM",
    "SUMMARIES",
    "AutodiffCheckpointType",
    "CircularLayerwiseShardablePipelined",
    "LayerwiseShardablePipelined",
]

"""Transformer layers with state spaces, gathered under their public path."""

from praxis.base_layer import WeightHParams, WeightInit
from praxis.layers.state_space.gated import SSMGated
from praxis.layers.state_space.transformer import SSMTransformer
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.pax_fiddle import template_field

__all__ = [
    "AutodiffCheckpointType",
    "SSMGated",
    "SSMTransformer",
    "WeightHParams",
    "WeightInit",
    "template_field",
]

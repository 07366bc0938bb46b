"""The Conformer and its attention, gathered under their public path."""

from praxis.layers.conformer.block import Conformer
from praxis.layers.conformer.context import (
    DotProductAttentionWithContext,
    DotProductAttentionWithContextXL,
)
from praxis.layers.conformer.self_attention import SelfAttentionWithNormAndResidual
from praxis.pax_fiddle import template_field

__all__ = [
    "Conformer",
    "DotProductAttentionWithContext",
    "DotProductAttentionWithContextXL",
    "SelfAttentionWithNormAndResidual",
    "template_field",
]

"""Transformer models, gathered under their public path."""

from praxis.base_layer import AUX_LOSS, AuxLossStruct, template_field
from praxis.layers.model.encoder_decoder import TransformerEncoderDecoder
from praxis.layers.model.transformer_lm import LanguageModelType, TransformerLm

__all__ = [
    "AUX_LOSS",
    "AuxLossStruct",
    "LanguageModelType",
    "TransformerEncoderDecoder",
    "TransformerLm",
    "template_field",
]

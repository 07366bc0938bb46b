"""GLaM language models, under their public path."""

from praxis.layers.model.glam import GlamStackedTransformerHParams, GlamUniTransformerLmHParams
from praxis.layers.model.transformer_lm import LanguageModelType

__all__ = [
    "GlamStackedTransformerHParams",
    "GlamUniTransformerLmHParams",
    "LanguageModelType",
]

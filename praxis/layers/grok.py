"""Language models like Grok-1, under their public path."""

from praxis.layers.model.grok import GrokStackedTransformerHParams, GrokUniTransformerLmHParams
from praxis.layers.model.transformer_lm import LanguageModelType
from praxis.layers.transformer.remat import AutodiffCheckpointType

__all__ = [
    "AutodiffCheckpointType",
    "GrokStackedTransformerHParams",
    "GrokUniTransformerLmHParams",
    "LanguageModelType",
]

"""Models as the trainer sees them, gathered under their public path."""

from praxis.decoder_hparams import (
    BeamSearchHParams,
    DecoderHParams,
    FlatBeamSearchHParams,
    GreedyDecoderHParams,
    SampleDecoderHParams,
)
from praxis.layers.model.language import LanguageModel
from praxis.layers.model.templates import template_has_type
from praxis.layers.model.transformer_lm import LanguageModelType
from praxis.layers.model.xent import compute_xent_loss_helper
from praxis.pax_fiddle import template_field
from praxis.pytypes import ArrayT

__all__ = [
    "ArrayT",
    "BeamSearchHParams",
    "DecoderHParams",
    "FlatBeamSearchHParams",
    "GreedyDecoderHParams",
    "LanguageModel",
    "LanguageModelType",
    "SampleDecoderHParams",
    "compute_xent_loss_helper",
    "template_field",
    "template_has_type",
]

"""Models as the trainer sees them, gathered under their public path."""

from praxis.decoder_hparams import (
    BeamSearchHParams,
    DecoderHParams,
    FlatBeamSearchHParams,
    GreedyDecoderHParams,
    SampleDecoderHParams,
)
from praxis.layers.model.bert import BertModel
from praxis.layers.model.classification import ClassificationMLPModel, ClassificationModel
from praxis.layers.model.continuous import LanguageModelContinuousBatching
from praxis.layers.model.dpo_examples import (
    DPOExample,
    DPOExampleHalf,
    DPOExampleHalfSeq2Seq,
    DPOExampleSeq2Seq,
    Labels,
)
from praxis.layers.model.language import LanguageModel
from praxis.layers.model.preference import (
    LanguageModelDPO,
    SequenceModelDPO,
    add_hist,
    compute_dpo_loss_helper,
)
from praxis.layers.model.sequence import SequenceModel
from praxis.layers.model.templates import template_has_type
from praxis.layers.model.transformer_lm import LanguageModelType
from praxis.layers.model.xent import compute_xent_loss_helper
from praxis.pax_fiddle import template_field
from praxis.pytypes import ArrayT

__all__ = [
    "ArrayT",
    "BeamSearchHParams",
    "BertModel",
    "ClassificationMLPModel",
    "ClassificationModel",
    "DPOExample",
    "DPOExampleHalf",
    "DPOExampleHalfSeq2Seq",
    "DPOExampleSeq2Seq",
    "DecoderHParams",
    "FlatBeamSearchHParams",
    "GreedyDecoderHParams",
    "Labels",
    "LanguageModel",
    "LanguageModelContinuousBatching",
    "LanguageModelDPO",
    "LanguageModelType",
    "SampleDecoderHParams",
    "SequenceModel",
    "SequenceModelDPO",
    "add_hist",
    "compute_dpo_loss_helper",
    "compute_xent_loss_helper",
    "template_field",
    "template_has_type",
]

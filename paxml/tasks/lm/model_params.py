"""Base classes of language-model experiments, under their public path."""

from paxml.tasks.lm.bert import (
    TransformerBertPmapAdam,
    TransformerBertSpmdAdafactor,
    TransformerBertSpmdPipelineAdafactor,
)
from paxml.tasks.lm.optimizer import set_default_adam
from paxml.tasks.lm.pmap import TransformerLmPmapAdam
from paxml.tasks.lm.spmd import TransformerLmSpmdAdafactor, TransformerLmSpmdPipelineAdafactor

__all__ = [
    "TransformerBertPmapAdam",
    "TransformerBertSpmdAdafactor",
    "TransformerBertSpmdPipelineAdafactor",
    "TransformerLmPmapAdam",
    "TransformerLmSpmdAdafactor",
    "TransformerLmSpmdPipelineAdafactor",
    "set_default_adam",
]

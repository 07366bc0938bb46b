"""Transformer layers and stacks, gathered under their public path."""

from praxis.base_layer import WeightHParams, WeightInit, template_field
from praxis.layers.transformer.block import Transformer
from praxis.layers.transformer.feed_forward import TransformerFeedForward
from praxis.layers.transformer.masks import (
    compute_attention_masks_for_extend_step,
    compute_attention_masks_for_fprop,
)
from praxis.layers.transformer.moe import TransformerFeedForwardMoe
from praxis.layers.transformer.pipelined_stack import (
    PipelineCompatibleStackedTransformerRepeated,
    PipelinedTransformer,
)
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.layers.transformer.repeat_stack import StackedTransformerRepeated
from praxis.layers.transformer.stack import StackedTransformer

__all__ = [
    "AutodiffCheckpointType",
    "PipelineCompatibleStackedTransformerRepeated",
    "PipelinedTransformer",
    "StackedTransformer",
    "StackedTransformerRepeated",
    "Transformer",
    "TransformerFeedForward",
    "TransformerFeedForwardMoe",
    "WeightHParams",
    "WeightInit",
    "compute_attention_masks_for_extend_step",
    "compute_attention_masks_for_fprop",
    "template_field",
]

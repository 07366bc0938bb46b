"""Embeddings, softmax layers and position embeddings, gathered under their public path."""

from praxis.base_layer import WeightHParams
from praxis.layers.embedding.counter import TokenCounter
from praxis.layers.embedding.gshard import GShardSharedEmbeddingSoftmax
from praxis.layers.embedding.position import PositionalEmbedding
from praxis.layers.embedding.position_2d import PositionalEmbedding2D
from praxis.layers.embedding.rotary import RotaryPositionalEmbedding
from praxis.layers.embedding.shared import (
    NClassMajorSharedEmbeddingSoftmax,
    SharedEmbeddingSoftmax,
)
from praxis.layers.embedding.sigmoid import SigmoidCrossEntropy
from praxis.layers.embedding.softmax import FullSoftmax
from praxis.layers.embedding.table import Embedding
from praxis.layers.embedding.trainable_position import TrainablePositionalEmbedding
from praxis.pax_fiddle import instance_field, template_field

__all__ = [
    "Embedding",
    "FullSoftmax",
    "GShardSharedEmbeddingSoftmax",
    "NClassMajorSharedEmbeddingSoftmax",
    "PositionalEmbedding",
    "PositionalEmbedding2D",
    "RotaryPositionalEmbedding",
    "SharedEmbeddingSoftmax",
    "SigmoidCrossEntropy",
    "TokenCounter",
    "TrainablePositionalEmbedding",
    "WeightHParams",
    "instance_field",
    "template_field",
]

"""Layers that add n-grams to embeddings, gathered under their public path."""

from praxis.base_layer import WeightHParams
from praxis.layers.embedding.bregman_ngram import BregmanCompression, BregmanNgrammer
from praxis.layers.embedding.ngram import Ngrammer, get_bigram_ids
from praxis.layers.embedding.ngram_stub import NgrammerStub
from praxis.layers.embedding.vector_quantization import VectorQuantization
from praxis.layers.embedding.vq_ngram import VQNgrammer

__all__ = [
    "BregmanCompression",
    "BregmanNgrammer",
    "Ngrammer",
    "NgrammerStub",
    "VQNgrammer",
    "VectorQuantization",
    "WeightHParams",
    "get_bigram_ids",
]

"""Recurrent layers over sequences, gathered under their public path."""

from praxis.base_layer import AUX_LOSS, HYPER_PARAMS, NON_TRAINABLE, PARAMS, RANDOM, SUMMARIES
from praxis.layers.recurrent.frnn import FRnn, LstmFrnn, reset_mask
from praxis.layers.recurrent.stack import StackBiFrnn, StackFrnn

__all__ = [
    "AUX_LOSS",
    "HYPER_PARAMS",
    "NON_TRAINABLE",
    "PARAMS",
    "RANDOM",
    "SUMMARIES",
    "FRnn",
    "LstmFrnn",
    "StackBiFrnn",
    "StackFrnn",
    "reset_mask",
]

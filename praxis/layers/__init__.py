"""Layers, gathered under their public names."""

from praxis.layers.activations import (
    ELU,
    GELU,
    BaseActivation,
    CubedReLU,
    Identity,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    SquaredReLU,
    Swish,
    Tanh,
)
from praxis.layers.base_ops import EinsumOp
from praxis.layers.checkpoint_policy import AutodiffCheckpointType
from praxis.layers.einsum import Einsum
from praxis.layers.linears import (
    Bias,
    FeedForward,
    Linear,
    MLPBlock,
    StackingOverTime,
    project_last_dim,
)
from praxis.layers.losses import BiTemperedLoss
from praxis.layers.normalizations import (
    BaseNormalization,
    BatchNorm,
    GroupNorm,
    IdentityNorm,
    LayerNorm,
    RmsNorm,
    RmsNormNoScale,
    compute_moments,
)
from praxis.layers.sequential import Sequential
from praxis.layers.stochastics import Dropout, StochasticResidual

__all__ = [
    "ELU",
    "GELU",
    "AutodiffCheckpointType",
    "BaseActivation",
    "BaseNormalization",
    "BatchNorm",
    "BiTemperedLoss",
    "Bias",
    "CubedReLU",
    "Dropout",
    "Einsum",
    "EinsumOp",
    "FeedForward",
    "GroupNorm",
    "Identity",
    "IdentityNorm",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MLPBlock",
    "ReLU",
    "ReLU6",
    "RmsNorm",
    "RmsNormNoScale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SquaredReLU",
    "StackingOverTime",
    "StochasticResidual",
    "Swish",
    "Tanh",
    "compute_moments",
    "project_last_dim",
]

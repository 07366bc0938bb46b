"""Recurrent cells, gathered under their public path."""

from praxis.base_layer import WeightHParams, WeightInit
from praxis.layers.recurrent.cell import BaseRnnCell
from praxis.layers.recurrent.lstm import (
    CifgLstmCellSimple,
    LayerNormalizedLstmCellSimple,
    LstmCellSimple,
)

__all__ = [
    "BaseRnnCell",
    "CifgLstmCellSimple",
    "LayerNormalizedLstmCellSimple",
    "LstmCellSimple",
    "WeightHParams",
    "WeightInit",
]

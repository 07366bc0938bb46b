"""Inputs, gathered under their public path."""

from praxis.base_hyperparams import instantiate
from praxis.input.base import BaseInput
from praxis.input.eval_adaptor import EvalAdaptor
from praxis.input.iterate import GrainInput, IterableInput
from praxis.input.legacy import (
    LingvoEvalAdaptor,
    LingvoInputAdaptor,
    LingvoInputAdaptorNewBatchSize,
    LingvoLazyEvalAdaptor,
)
from praxis.input.multi import MultiInput
from praxis.input.numpy_source import NumpyInput
from praxis.input.rebatch import RebatchInput
from praxis.input.specs import BaseInputSpecsProvider, DatasetInputSpecsProvider

__all__ = [
    "BaseInput",
    "BaseInputSpecsProvider",
    "DatasetInputSpecsProvider",
    "EvalAdaptor",
    "GrainInput",
    "IterableInput",
    "LingvoEvalAdaptor",
    "LingvoInputAdaptor",
    "LingvoInputAdaptorNewBatchSize",
    "LingvoLazyEvalAdaptor",
    "MultiInput",
    "NumpyInput",
    "RebatchInput",
    "instantiate",
]

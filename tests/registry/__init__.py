"""Every public layer, with a small config and example inputs, for the sweeps of test_registry.py.

A new layer gets an entry in the module of its family, and with it all the sweeps: shapes, jit,
gradients, dtypes, copies of the config, errors and the golden tree. Sizes are distinct, and prime
where the layer allows it, so that a swapped axis fails.
"""

from registry import (
    attention,
    composition,
    embedding,
    language,
    linear,
    model,
    ngrammer,
    normalization,
    recurrent,
    speech,
    state_space,
    transformer,
    vector_quantizer,
    video,
    vision,
    wrapper,
)
from registry.entry import ENTRIES, NAME, Entry

__all__ = [
    "ENTRIES",
    "NAME",
    "Entry",
    "attention",
    "composition",
    "embedding",
    "language",
    "linear",
    "model",
    "ngrammer",
    "normalization",
    "recurrent",
    "speech",
    "state_space",
    "transformer",
    "vector_quantizer",
    "video",
    "vision",
    "wrapper",
]

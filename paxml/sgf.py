"""Ways to make the gradient of a batch, gathered under their public path."""

from paxml.learner.gradient import (
    PARAMS,
    PMAP_PARALLEL_AXIS_NAME,
    BaseStochasticGradient,
    GradAuxInfo,
    StandardGradient,
)

__all__ = [
    "PARAMS",
    "PMAP_PARALLEL_AXIS_NAME",
    "BaseStochasticGradient",
    "GradAuxInfo",
    "StandardGradient",
]

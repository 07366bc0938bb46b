"""Ways to make the gradient of a batch, gathered under their public path."""

from paxml.learner.dp.ghost import GhostClippingDpSgdStochasticGradient
from paxml.learner.dp.per_example import (
    AugMulDpSgdStochasticGradient,
    DPGradAuxInfo,
    DpSgdStochasticGradient,
    MicrobatchDpSgdStochasticGradient,
    PerLayerDpSgdStochasticGradient,
)
from paxml.learner.dp.percore import PercoreClippedDpSgdGradient
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
    "AugMulDpSgdStochasticGradient",
    "BaseStochasticGradient",
    "DPGradAuxInfo",
    "DpSgdStochasticGradient",
    "GhostClippingDpSgdStochasticGradient",
    "GradAuxInfo",
    "MicrobatchDpSgdStochasticGradient",
    "PerLayerDpSgdStochasticGradient",
    "PercoreClippedDpSgdGradient",
    "StandardGradient",
]

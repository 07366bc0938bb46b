"""Learning rate schedules, gathered under their public path."""

from praxis.config.instantiate import instantiate
from praxis.optim.schedules.base import BaseSchedule, Constant
from praxis.optim.schedules.decay import (
    ContinuousSchedule,
    Cosine,
    DelayedCosine,
    Exponential,
    Linear,
    Polynomial,
)
from praxis.optim.schedules.inverse_sqrt import LinearRampupSqrtDecay, SqrtDecay, Transformer
from praxis.optim.schedules.piecewise import (
    CycleSchedule,
    LinearRampupPiecewiseConstant,
    PiecewiseConstant,
    PiecewiseSchedule,
)
from praxis.optim.schedules.ramp import (
    LinearRampupCosineDecay,
    LinearRampupExponentialDecay,
    LinearRampupPolynomialDecay,
)

__all__ = [
    "BaseSchedule",
    "Constant",
    "ContinuousSchedule",
    "Cosine",
    "CycleSchedule",
    "DelayedCosine",
    "Exponential",
    "Linear",
    "LinearRampupCosineDecay",
    "LinearRampupExponentialDecay",
    "LinearRampupPiecewiseConstant",
    "LinearRampupPolynomialDecay",
    "LinearRampupSqrtDecay",
    "PiecewiseConstant",
    "PiecewiseSchedule",
    "Polynomial",
    "SqrtDecay",
    "Transformer",
    "instantiate",
]

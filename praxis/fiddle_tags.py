"""Tags of configs, gathered under their public path."""

from praxis.config.tags import (
    ActivationDType,
    ActivationSplitDimsMapping,
    BaseDType,
    DropoutRate,
    ParamsDType,
    ParamsSplitDimsMapping,
    WeightInit,
)

__all__ = [
    "ActivationDType",
    "ActivationSplitDimsMapping",
    "BaseDType",
    "DropoutRate",
    "ParamsDType",
    "ParamsSplitDimsMapping",
    "WeightInit",
]

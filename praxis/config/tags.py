"""Tags for fields that are set together across a config, as all dtypes of activations."""

import fiddle as fdl


class BaseDType(fdl.Tag):
    """Data type of parameters or activations."""


class ParamsDType(BaseDType):
    """Data type that parameters are stored in."""


class ActivationDType(BaseDType):
    """Data type that activations are computed in."""


class WeightInit(fdl.Tag):
    """Initializer of parameters."""


class ParamsSplitDimsMapping(fdl.Tag):
    """Mesh axes that the dimensions of parameters are split over."""


class ActivationSplitDimsMapping(fdl.Tag):
    """Mesh axes that the dimensions of activations are split over."""


class DropoutRate(fdl.Tag):
    """Probability of dropping an element."""


class DoNotBuild(fdl.Tag):
    """Kept for old imports; the annotation of a field decides whether it is built."""

"""State space layers, gathered under their public path."""

from praxis.base_layer import (
    AUX_LOSS,
    NON_TRAINABLE,
    PARAMS,
    RANDOM,
    SUMMARIES,
    WeightHParams,
    WeightInit,
)
from praxis.layers.state_space.diagonal import (
    causal_convolution,
    s4d_discretize,
    s4d_kernel_zoh,
    s4d_step,
)
from praxis.layers.state_space.hippo import make_dplr_hippo, make_hippo, make_nplr_hippo
from praxis.layers.state_space.parallel import (
    binary_operator,
    s5_discretize,
    s5_parallel_scan,
    s5_step,
)
from praxis.layers.state_space.ssm import S5, SSM

__all__ = [
    "AUX_LOSS",
    "NON_TRAINABLE",
    "PARAMS",
    "RANDOM",
    "S5",
    "SSM",
    "SUMMARIES",
    "WeightHParams",
    "WeightInit",
    "binary_operator",
    "causal_convolution",
    "make_dplr_hippo",
    "make_hippo",
    "make_nplr_hippo",
    "s4d_discretize",
    "s4d_kernel_zoh",
    "s4d_step",
    "s5_discretize",
    "s5_parallel_scan",
    "s5_step",
]

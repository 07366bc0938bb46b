"""Normalization and dropout."""

from praxis.layers import (
    normalizations,
    stochastics,
)
from registry.entry import EVEN, B, Config, D, F, S, T, add, floats, paddings
from registry.linear import WIDE, WRONG_WIDTH

NORM_INPUTS = {"inputs": floats(B, T, D), "paddings": paddings()}
for norm in (
    normalizations.BatchNorm,
    normalizations.LayerNorm,
    normalizations.RmsNorm,
):
    add(Config(norm, dim=D), NORM_INPUTS, wrong=WRONG_WIDTH)
for norm in (normalizations.IdentityNorm, normalizations.RmsNormNoScale):
    add(Config(norm), NORM_INPUTS, wrong="takes inputs of any width")
for norm in (normalizations.SpectralNorm, normalizations.WeightNormL2):
    add(Config(norm, dim=D), {"inputs": floats(F, D)}, wrong={"inputs": floats(F, D + 1)})
add(
    Config(normalizations.LayerNorm, dim=D, use_bias=False, reductions_in_fp32=True),
    NORM_INPUTS,
    "no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(normalizations.BatchNorm, dim=D, use_moving_avg_in_training=True),
    NORM_INPUTS,
    "moving_average",
    wrong=WRONG_WIDTH,
    # In training beta is 0 and gamma 1, whatever the variables are.
    has_idle_params=True,
)
GROUP_INPUTS = {"inputs": floats(B, T, S, EVEN), "paddings": paddings()}
WRONG_GROUP = {"inputs": floats(B, T, S, EVEN + 1)}
GROUPS = {"dim": EVEN, "num_groups": 3, "input_rank": 4}
add(Config(normalizations.GroupNorm, **GROUPS), GROUP_INPUTS, wrong=WRONG_GROUP)
add(
    Config(normalizations.GroupNorm, cumulative=True, **GROUPS),
    GROUP_INPUTS,
    "cumulative",
    wrong=WRONG_GROUP,
)

add(
    Config(stochastics.Dropout, keep_prob=0.7),
    WIDE,
    streams=["random"],
    wrong="elementwise: any shape",
)
add(
    Config(stochastics.Dropout, keep_prob=0.7, noise_shape=[B, 1, D]),
    WIDE,
    "noise_shape",
    streams=["random"],
    wrong=WRONG_WIDTH,
)
RESIDUAL = {"inputs": floats(B, T, D), "residual": floats(B, T, D, seed=1)}
add(Config(stochastics.StochasticResidual), RESIDUAL, wrong=WRONG_WIDTH)
add(
    Config(stochastics.StochasticResidual, survival_prob=0.7, residual_weight=0.5),
    RESIDUAL,
    "droppath",
    streams=["random"],
    wrong=WRONG_WIDTH,
)

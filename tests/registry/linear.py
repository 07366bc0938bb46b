"""Activations, operations and linear layers."""

from typing import Any

import numpy as np

from praxis.layers import (
    activations,
    base_ops,
    einsum,
    linears,
)
from registry.entry import B, Config, D, F, H, N, T, V, add, floats, ids, paddings

for activation in (
    activations.CubedReLU,
    activations.ELU,
    activations.Exp,
    activations.GELU,
    activations.Identity,
    activations.LeakyReLU,
    activations.ReLU,
    activations.ReLU6,
    activations.SiLU,
    activations.Sigmoid,
    activations.SineReLU,
    activations.Softplus,
    activations.SquaredReLU,
    activations.Swish,
    activations.Tanh,
):
    add(Config(activation), {"inputs": floats(B, T, D)}, wrong="elementwise: any shape")
add(
    Config(activations.GELU, approximate=False),
    {"inputs": floats(B, T, D)},
    "exact",
    wrong="elementwise: any shape",
)

OPERANDS = floats(B, T, D), floats(D, F, seed=1)
add(
    Config(base_ops.EinsumOp),
    {},
    positional=("btd,df->btf", *OPERANDS),
    wrong="the equation and the operands are those of jnp.einsum, and so are the errors",
)
add(
    Config(base_ops.EinsumGatedOp),
    {},
    positional=("btd,df->btf", *OPERANDS, floats(D, F, seed=2)),
    wrong="the equation and the operands are those of jnp.einsum, and so are the errors",
)
add(
    Config(base_ops.ArrayLookup),
    {"x": floats(V, D), "idx": ids(B, T)},
    wrong="any array and any index",
)

WIDE = {"inputs": floats(B, T, D)}
WRONG_WIDTH = {"inputs": floats(B, T, D + 1)}
MESH = {"ici_mesh_shape": [2, 4], "mesh_axis_names": ["data", "mdl"]}


def sharded(config: Config, **mappings: Any) -> Config:
    """Sets a mesh and the sharding of variables; only metadata, no devices are needed."""
    config.set(**MESH)
    config.weight_split_dims_mapping.set(**mappings)
    return config


add(
    Config(einsum.Einsum, eqn="btd,dnh->btnh", w_shape=[D, N, H]),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(einsum.Einsum, eqn="...d,df->...f", w_shape=[D, F], use_bias=True),
    WIDE,
    "bias",
    wrong=WRONG_WIDTH,
)
add(Config(linears.Linear, input_dims=D, output_dims=F), WIDE, wrong=WRONG_WIDTH)
add(
    sharded(Config(linears.Linear, input_dims=D, output_dims=F), wt=["data", "mdl"]),
    WIDE,
    "sharded",
    wrong=WRONG_WIDTH,
)
add(Config(linears.Bias, dims=D), WIDE, wrong=WRONG_WIDTH)
add(Config(linears.FeedForward, input_dims=D, output_dims=F), WIDE, wrong=WRONG_WIDTH)
add(
    Config(
        linears.FeedForward,
        input_dims=D,
        output_dims=F,
        has_bias=False,
        activation_tpl=Config(activations.SiLU),
    ),
    WIDE,
    "no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(
        linears.MLPBlock,
        hidden_dims=F,
        ff_tpl=Config(linears.FeedForward, input_dims=D, output_dims=V),
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(linears.StackingOverTime, left_context=1, right_context=1, stride=2),
    {"inputs": floats(B, T, D), "paddings": paddings()[..., np.newaxis]},
    wrong={"paddings": paddings(length=T + 1)[..., np.newaxis]},
)

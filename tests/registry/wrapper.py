"""Sequences of layers, and wrapped Flax modules."""

from typing import Any

import flax.linen as nn

from praxis.layers import (
    activations,
    flax_adapter,
    linears,
    sequential,
)
from registry.entry import B, Config, D, F, T, V, add, floats
from registry.linear import WIDE

add(
    Config(
        sequential.Sequential,
        layers=[
            Config(linears.Linear, input_dims=D, output_dims=F),
            Config(activations.ReLU),
            Config(linears.Bias, dims=F),
        ],
    ),
    {},
    positional=(floats(B, T, D),),
    wrong="the errors are those of its layers, whose arguments are its own",
)


def make_dense() -> nn.Module:
    """A Flax module for the adapters."""
    return nn.Dense(F)


class Autoencoder(nn.Module):
    """A Flax module with the methods that EncoderDecoderFlaxModuleAdaptor forwards to."""

    def setup(self) -> None:
        self.hidden = nn.Dense(F)
        self.logits = nn.Dense(V)

    def encode(self, inputs: Any) -> Any:
        return self.hidden(inputs)

    def __call__(self, inputs: Any) -> Any:
        return self.logits(self.encode(inputs))


FOREIGN = "the wrapped Flax module checks its own inputs"
FOREIGN_FLOAT32 = "all"
for template in (
    Config(flax_adapter.FlaxModuleAdapter, module_factory_method=make_dense),
    Config(flax_adapter.DirectFlaxModuleAdapter, cld=Config(nn.Dense, features=F)),
    Config(flax_adapter.EncoderDecoderFlaxModuleAdaptor, module_factory_method=Autoencoder),
):
    add(template, WIDE, wrong=FOREIGN, float32_outputs=FOREIGN_FLOAT32)

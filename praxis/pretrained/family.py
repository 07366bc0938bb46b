"""What a family of models has to say so that its files can be read."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, transformers
from praxis.layers.model import lm_sharding
from praxis.pretrained.settings import Settings
from praxis.pretrained.table import Table

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]

# Names of activations in config.json files.
ACTIVATIONS: Mapping[str, LayerTpl] = {
    "gelu": pax_fiddle.Config(activations.GELU, approximate=False),
    "gelu_new": pax_fiddle.Config(activations.GELU, approximate=True),
    "gelu_pytorch_tanh": pax_fiddle.Config(activations.GELU, approximate=True),
    "relu": pax_fiddle.Config(activations.ReLU),
    "silu": pax_fiddle.Config(activations.SiLU),
}


def lm_inputs(ids: Int[Array, "B T"]) -> dict[str, Any]:
    """The inputs of a `TransformerLm`."""
    return {"inputs": ids, "paddings": jnp.zeros(ids.shape, jnp.float32)}


class Family(NamedTuple):
    """A family of models.

    Attributes:
      config: (settings, repeated) -> the config of the model.
      table: settings -> which tensor becomes which variable.
      sizes: settings -> sizes of the letters in the table.
      example_inputs: ids -> keyword arguments of the model's `__call__`.
    """

    config: Callable[[Settings, bool], LayerTpl]
    table: Callable[[Settings], Table]
    sizes: Callable[[Settings], Mapping[str, int]]
    example_inputs: Callable[[Int[Array, "B T"]], dict[str, Any]] = lm_inputs


def activation(settings: Settings, name: str, default: str) -> LayerTpl:
    """The config of the activation that a setting names.

    Raises:
      ValueError: if there is no such activation here.
    """
    settings.only(name, default, *ACTIVATIONS)
    return ACTIVATIONS[settings.get(name, default)].clone()


def stack(num_layers: int, repeated: bool) -> LayerTpl:
    """The config of a stack of layers; `lm_sharding.inner_stack` of it has the layers' settings."""
    if repeated:
        config = pax_fiddle.Config(transformers.StackedTransformerRepeated, x_times=num_layers)
        config.block.num_layers = 1
        return config
    return pax_fiddle.Config(transformers.StackedTransformer, num_layers=num_layers)


def inner_stack(config: LayerTpl) -> LayerTpl:
    """The `StackedTransformer` in the config of a stack."""
    return lm_sharding.inner_stack(config)

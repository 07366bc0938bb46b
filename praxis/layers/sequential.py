"""Layers called one after the other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from praxis import base_layer


class Sequential(base_layer.BaseLayer):
    """Feeds the output of each layer to the next.

    A tuple is passed on as positional arguments, a mapping (a `NestedMap` too) as keyword
    arguments, anything else as the only argument.

    Attributes:
      layers: Layers (in a config: their configs) or functions, at least one. Required.

    Variables:
      layers_0, layers_1, ...: as in the layers

    Raises:
      ValueError: in `__call__`, if there are no layers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> project = pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=5)
      >>> layer = pax_fiddle.build(pax_fiddle.Config(Sequential, layers=[project, jnp.tanh]))
      >>> x = jnp.ones([2, 3])
      >>> layer.apply(layer.init(jax.random.PRNGKey(0), x), x).shape
      (2, 5)
    """

    layers: Sequence[Callable[..., Any]] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the first layer with the arguments and hands back what the last one returns."""
        if not self.layers:
            raise ValueError(
                f"{self.path_text}: layers is {self.layers!r}, expected at least one layer or "
                "function."
            )
        first, *rest = self.layers
        outputs = first(*args, **kwargs)
        for layer in rest:
            if isinstance(outputs, tuple):
                outputs = layer(*outputs)
            elif isinstance(outputs, Mapping):
                outputs = layer(**outputs)
            else:
                outputs = layer(outputs)
        return outputs

"""Layers called one after the other, with tuples of arguments between them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from praxis import base_layer

Layer = Callable[..., Any]


def ensure_tuple(x: Any) -> tuple[Any, ...]:
    """A tuple as it is, anything else in a tuple."""
    return x if isinstance(x, tuple) else (x,)


def call_chained_layer(layer: Layer, *args: Any, **kwargs: Any) -> Any:
    """Calls a layer with those of the keyword arguments that it takes."""
    taken = _keywords(layer)
    if taken is not None:
        kwargs = {name: value for name, value in kwargs.items() if name in taken}
    return layer(*args, **kwargs)


def call_chain(layers: Sequence[Layer], *args: Any, **kwargs: Any) -> Any:
    """Feeds the output of each layer to the next.

    Args:
      layers: Layers or functions. A tuple that one of them returns is the positional arguments of
        the next one; anything else is its only argument.
      *args: Arguments of the first layer; handed back if there is none.
      **kwargs: Arguments of all layers that take them.

    Returns:
      The output of the last layer.

    Raises:
      TypeError: if no layer takes one of the keyword arguments.
    """
    for name in kwargs:
        keywords = [_keywords(layer) for layer in layers]
        if not any(taken is None or name in taken for taken in keywords):
            raise TypeError(
                f"call_chain: got {name!r}, but no layer takes an argument of that name: "
                f"{[getattr(layer, 'path_text', layer) for layer in layers]}."
            )
    outputs: Any = args if len(args) != 1 else args[0]
    for layer in layers:
        outputs = call_chained_layer(layer, *ensure_tuple(outputs), **kwargs)
    return outputs


def _keywords(layer: Layer) -> set[str] | None:
    """Names of the keyword arguments of a layer; None if it takes any."""
    function = layer.__call__ if isinstance(layer, base_layer.BaseLayer) else layer
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name for parameter in parameters if parameter.kind in by_name}


class Chain(base_layer.BaseLayer):
    """Feeds the output of each layer to the next, see `call_chain`.

    Attributes:
      layers: Layers or functions (in a config: configs of layers); None or none hands the
        arguments back.
      preserve_adopted_names: Variables of a layer are under its own name, where it has one;
        otherwise, and for layers without a name, under `layers_0`, `layers_1`, ...

    Variables:
      as in the layers

    Raises:
      TypeError: in `__call__`, if no layer takes one of the keyword arguments.
    """

    layers: Sequence[Layer] | None = None
    preserve_adopted_names: bool = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the first layer with the arguments, and returns what the last one does."""
        return self.call_chain(*args, **kwargs)

    def call_chain(self, *args: Any, **kwargs: Any) -> Any:
        """As `__call__`; what subclasses that do more than that call."""
        return call_chain(self.layers or (), *args, **kwargs)

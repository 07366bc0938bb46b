"""Checks that layers make of their fields and inputs, with errors that name the layer."""

import numpy as np
from jaxtyping import Array, Shaped

from praxis import base_layer


def check_sizes(layer: base_layer.BaseLayer, *fields: str) -> None:
    """Refuses size fields of a layer that are missing or below 1.

    Raises:
      TypeError: if a field is no int.
      ValueError: naming the layer and the first bad field.
    """
    for field in fields:
        size = getattr(layer, field)
        if size is not None and not isinstance(size, int | np.integer):
            raise TypeError(
                f"{layer.path_text}: {field} is {size!r} of type {type(size).__name__}, expected "
                "an int."
            )
        if size is None or size < 1:
            raise ValueError(
                f"{layer.path_text}: {field} is {size}, expected at least 1. "
                f"Set it in the config, e.g. config.{field} = 512."
            )


def check_last_axis(layer: base_layer.BaseLayer, inputs: Shaped[Array, "..."], field: str) -> None:
    """Refuses inputs whose last axis is not as wide as a field of the layer says.

    Raises:
      ValueError: naming the layer, the shape and the field.
    """
    size = getattr(layer, field)
    if inputs.shape[-1:] != (size,):
        raise ValueError(
            f"{layer.path_text}: inputs have shape {inputs.shape}, expected [..., D] with "
            f"D = {field} = {size}."
        )

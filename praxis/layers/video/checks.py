"""Checks of video, with errors that name the layer."""

from jaxtyping import Array, Shaped

from praxis import base_layer


def check_video(layer: base_layer.BaseLayer, inputs: Shaped[Array, "..."], field: str) -> None:
    """Refuses inputs that are not [B, T, H, W, C] with as many channels as a field says.

    Raises:
      ValueError: naming the layer, the shape and the field.
    """
    size = getattr(layer, field)
    if inputs.ndim != 5 or inputs.shape[-1] != size:
        raise ValueError(
            f"{layer.path_text}: inputs have shape {inputs.shape}, expected [B, T, H, W, C] with "
            f"C = {field} = {size}."
        )

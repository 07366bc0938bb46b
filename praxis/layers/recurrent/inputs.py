"""Reads and checks what recurrent layers take, one step or a whole sequence of it."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Shaped

from praxis import base_layer, py_utils

NestedMap = py_utils.NestedMap


def required(layer: base_layer.BaseLayer, inputs: Mapping[str, Any], name: str) -> Any:
    """Returns a field of the inputs or of a state.

    Raises:
      ValueError: naming the layer and the field, if there is none.
    """
    if name not in inputs:
        raise ValueError(
            f"{layer.path_text}: there is no field {name!r}, only {sorted(inputs)}. Pass a "
            f"NestedMap with {name}."
        )
    return inputs[name]


def tensors(layer: base_layer.BaseLayer, inputs: Mapping[str, Any]) -> list[Array]:
    """Returns `inputs.act` as a list; a single array becomes a list of one.

    Raises:
      ValueError: naming the layer, if the field is missing or an empty list.
    """
    act = required(layer, inputs, "act")
    arrays = list(act) if isinstance(act, (list, tuple)) else [act]
    if not arrays:
        raise ValueError(f"{layer.path_text}: act is an empty list, expected at least one array.")
    return arrays


def check_shape(
    layer: base_layer.BaseLayer,
    name: str,
    array: Shaped[Array, "..."],
    expected: tuple[int, ...],
    letters: str,
) -> None:
    """Refuses an array of another shape.

    Args:
      layer: Named in the error.
      name: Of the array.
      array: The array.
      expected: Its shape.
      letters: The shape in letters, e.g. "[B, 1]".

    Raises:
      ValueError: naming the layer, the array and both shapes.
    """
    if tuple(array.shape) != expected:
        raise ValueError(
            f"{layer.path_text}: {name} has shape {tuple(array.shape)}, expected {letters} = "
            f"{expected}."
        )


def check_sequence(layer: base_layer.BaseLayer, inputs: Mapping[str, Any]) -> None:
    """Refuses sequences whose fields are not [B, T, D] and [B, T, 1], with one B and one T.

    Raises:
      ValueError: naming the layer, the field and the shapes.
    """
    arrays = tensors(layer, inputs)
    for array in arrays:
        if array.ndim != 3 or array.shape[:2] != arrays[0].shape[:2]:
            shapes = [tuple(each.shape) for each in arrays]
            raise ValueError(
                f"{layer.path_text}: the arrays of act have the shapes {shapes}, expected "
                "[B, T, D] with the same B and T."
            )
    marks = (*arrays[0].shape[:2], 1)
    check_shape(layer, "padding", required(layer, inputs, "padding"), marks, "[B, T, 1]")
    if "segment_ids" in inputs:
        check_shape(layer, "segment_ids", inputs["segment_ids"], marks, "[B, T, 1]")

"""Checks of the inputs and labels that all output layers take."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer


def check_labels(
    layer: base_layer.BaseLayer,
    inputs: Float[Array, "..."],
    class_weights: Shaped[Array, "..."],
    class_ids: Shaped[Array, "..."] | None,
    class_probabilities: Shaped[Array, "..."] | None,
    *,
    weight_widths: tuple[int, ...] = (1,),
) -> None:
    """Refuses labels that do not belong to the inputs.

    Args:
      layer: The layer that computes the loss, with a field `num_classes` (V).
      inputs: [..., D].
      class_weights: [..., 1], or another width of `weight_widths`.
      class_ids: [..., 1], integers, or None.
      class_probabilities: [..., V], or None.
      weight_widths: Accepted lengths of the last axis of `class_weights`.

    Raises:
      ValueError: if there is neither ids nor probabilities, or a shape is not as said.
      TypeError: if the ids are not integers.
    """
    if class_ids is None and class_probabilities is None:
        raise ValueError(
            f"{layer.path_text}: neither class_ids nor class_probabilities is given. "
            "Pass one of them, or call get_logits if you want no loss."
        )
    _check_shape(layer, "class_weights", class_weights, inputs, weight_widths)
    if class_ids is not None:
        _check_shape(layer, "class_ids", class_ids, inputs, (1,))
        if not jnp.issubdtype(class_ids.dtype, jnp.integer):
            raise TypeError(
                f"{layer.path_text}: class_ids have dtype {class_ids.dtype}, expected integers. "
                "Distributions over the classes go to class_probabilities."
            )
    if class_probabilities is not None:
        _check_shape(
            layer, "class_probabilities", class_probabilities, inputs, (layer.num_classes,)
        )


def _check_shape(
    layer: base_layer.BaseLayer,
    name: str,
    labels: Shaped[Array, "..."],
    inputs: Float[Array, "..."],
    widths: tuple[int, ...],
) -> None:
    """Refuses labels whose last axis has none of `widths`, or whose other axes do not match.

    Axes of length 1 may stand for any length.
    """
    lead = inputs.shape[:-1]
    fits = (
        labels.ndim == inputs.ndim
        and labels.shape[-1] in widths
        and all(have in (1, want) for have, want in zip(labels.shape[:-1], lead, strict=True))
    )
    if not fits:
        expected = " or ".join(str((*lead, width)) for width in dict.fromkeys(widths))
        raise ValueError(
            f"{layer.path_text}: {name} have shape {labels.shape}, expected {expected} for inputs "
            f"of shape {inputs.shape}."
        )

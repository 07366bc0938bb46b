"""Checks of the fields of a batch."""

from collections.abc import Iterable
from typing import Any


def check_fields(layer: Any, input_batch: Any, names: Iterable[str], what: str = "batch") -> None:
    """Refuses a batch, or a part of one, that lacks a field.

    Raises:
      ValueError: naming the layer, the field and what there is.
    """
    names = tuple(names)
    for name in names:
        if name not in input_batch:
            raise ValueError(
                f"{layer.path_text}: the {what} has no field {name!r}, only "
                f"{sorted(input_batch.keys())}. Let the input give {', '.join(names)}."
            )

"""Checks that encoder and decoder make of the levels of their resolution."""

from collections.abc import Sequence

from praxis import base_layer


def check_levels(
    layer: base_layer.BaseLayer, multipliers: Sequence[int], temporal: Sequence[bool]
) -> None:
    """Refuses levels that do not go together.

    Args:
      layer: The layer that has the fields.
      multipliers: Its `channel_multipliers`.
      temporal: Its `temporal_downsample`.

    Raises:
      ValueError: naming the layer and the fields.
    """
    if not multipliers or min(multipliers) < 1:
        raise ValueError(
            f"{layer.path_text}: channel_multipliers is {tuple(multipliers)}, expected one number "
            "of at least 1 for each level."
        )
    if len(temporal) != len(multipliers) - 1:
        raise ValueError(
            f"{layer.path_text}: temporal_downsample is {tuple(temporal)}, expected "
            f"{len(multipliers) - 1} booleans, one between each two of the levels of "
            f"channel_multipliers = {tuple(multipliers)}."
        )

"""Fields of attention layers: what they stand for, and which contradict each other."""

from collections.abc import Mapping
from typing import Any

import fiddle as fdl

from praxis.layers import base_ops, stochastics
from praxis.layers.attention.attend import check_implementation
from praxis.layers.checks import check_sizes


def check_whole_probabilities(layer: Any, fields: Mapping[str, bool]) -> None:
    """Refuses an implementation without probabilities beside what needs them.

    Args:
      layer: Has a field `implementation`.
      fields: Which fields are set so that all probabilities of a row are needed at once.

    Raises:
      ValueError: naming the layer, `implementation` and the first such field.
    """
    check_implementation(layer.path_text, layer.implementation)
    if layer.implementation not in ("blockwise", "fused"):
        return
    for field, is_set in fields.items():
        if is_set:
            value = getattr(layer, field)
            shown = value if isinstance(value, int | float) else fdl.get_callable(value).__name__
            raise ValueError(
                f"{layer.path_text}: implementation = {layer.implementation!r} contradicts "
                f"{field} = {shown}, which needs all attention probabilities at once. "
                "Set implementation to 'auto' or 'reference', or unset the other."
            )


def is_injected(tpl: Any) -> bool:
    """Whether a template of an einsum is of another class than the plain one."""
    return fdl.get_callable(tpl) is not base_ops.EinsumOp


def drops(layer: Any) -> bool:
    """Whether attention probabilities are dropped in this call."""
    if fdl.get_callable(layer.dropout_tpl) is not stochastics.Dropout:
        return True  # What a dropout of another class does is not known here.
    in_eval = layer.do_eval and not layer.dropout_tpl.dropout_at_eval
    return layer.atten_dropout_prob > 0.0 and not in_eval


def input_widths(layer: Any) -> Mapping[str, int]:
    """The widths of query, key and value of a layer with a field `input_dim`.

    Raises:
      ValueError: naming the layer, if they are missing or contradict `combine_qkv`.
    """
    names = ("query", "key", "value")
    if not isinstance(layer.input_dim, Mapping):
        check_sizes(layer, "input_dim")
        return dict.fromkeys(names, layer.input_dim)
    if set(layer.input_dim) != set(names):
        raise ValueError(
            f"{layer.path_text}: input_dim is {dict(layer.input_dim)}, expected a width, or a "
            f"dict with the widths of {names}."
        )
    if layer.combine_qkv and len(set(layer.input_dim.values())) > 1:
        raise ValueError(
            f"{layer.path_text}: combine_qkv = True contradicts input_dim = "
            f"{dict(layer.input_dim)}: one projection has one width. Set combine_qkv to False."
        )
    return layer.input_dim

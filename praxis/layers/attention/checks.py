"""Checks that attention layers share, with errors that name the layer."""

from typing import Any

import jax.numpy as jnp

from praxis import base_layer
from praxis.layers.attention.mask_spec import AttentionMask
from praxis.layers.checks import check_sizes


def check_head_sizes(layer: Any) -> None:
    """Refuses `num_heads`, `hidden_dim` and `dim_per_head` that do not give the width of a head.

    Raises:
      ValueError: naming the layer, the field and what to set.
    """
    check_sizes(layer, "num_heads")
    if layer.dim_per_head is not None:
        check_sizes(layer, "dim_per_head")
        return
    check_sizes(layer, "hidden_dim")
    if layer.hidden_dim % layer.num_heads:
        nearest = -(-layer.hidden_dim // layer.num_heads) * layer.num_heads
        raise ValueError(
            f"{layer.path_text}: hidden_dim = {layer.hidden_dim} is not a multiple of "
            f"num_heads = {layer.num_heads}.\n"
            f"Set hidden_dim to {nearest}, or set dim_per_head explicitly."
        )


def check_kv_heads(layer: Any) -> None:
    """Refuses a `num_kv_heads` that does not divide `num_heads`.

    Raises:
      ValueError: naming the layer and both numbers.
    """
    check_sizes(layer, "num_heads", "num_kv_heads")
    if layer.num_heads % layer.num_kv_heads:
        raise ValueError(
            f"{layer.path_text}: num_heads = {layer.num_heads} is not a multiple of "
            f"num_kv_heads = {layer.num_kv_heads}. Each key-value head serves the same number "
            "of query heads: set num_kv_heads to a divisor."
        )


def check_score_fields(layer: Any) -> None:
    """Refuses an `atten_dropout_prob` or an `atten_logit_cap` out of range.

    Raises:
      ValueError: naming the layer, the field and its value.
    """
    if not 0.0 <= layer.atten_dropout_prob < 1.0:
        raise ValueError(
            f"{layer.path_text}: atten_dropout_prob is {layer.atten_dropout_prob}, expected a "
            "probability of dropping, at least 0 and below 1."
        )
    if layer.atten_logit_cap < 0.0:
        raise ValueError(
            f"{layer.path_text}: atten_logit_cap is {layer.atten_logit_cap}, expected a positive "
            "cap, or 0 for none."
        )


def check_rotary_fields(layer: Any) -> None:
    """Refuses rotation without a template, and rotated keys in the cache without rotation.

    Raises:
      ValueError: naming the layer and the fields.
    """
    if layer.use_rotary_position_emb and layer.rotary_position_emb_tpl is None:
        raise ValueError(
            f"{layer.path_text}: use_rotary_position_emb = True needs a "
            "rotary_position_emb_tpl, which is None. Set one of them."
        )
    if layer.consolidate_rope_key_state and not layer.use_rotary_position_emb:
        raise ValueError(
            f"{layer.path_text}: consolidate_rope_key_state = True contradicts "
            "use_rotary_position_emb = False: there are no rotated keys. Set the first to "
            "False or the second to True."
        )


def check_mask(
    layer: base_layer.BaseLayer, atten_mask: Any, full: tuple[int, ...], letters: str
) -> None:
    """Refuses a mask of integers, or one that does not broadcast to a shape.

    Args:
      layer: Whose call it is.
      atten_mask: An array, or an `AttentionMask`.
      full: The shape.
      letters: The shape in letters, for the error.

    Raises:
      TypeError: if the mask holds integers.
      ValueError: if its shape does not fit.
    """
    shape = tuple(atten_mask.shape)
    is_lazy = isinstance(atten_mask, AttentionMask)
    if (
        not is_lazy
        and atten_mask.dtype != jnp.bool
        and not jnp.issubdtype(atten_mask.dtype, jnp.floating)
    ):
        raise TypeError(
            f"{layer.path_text}: atten_mask has dtype {atten_mask.dtype}, expected a floating "
            "one (0 keeps, large negative hides) or booleans (True keeps)."
        )
    if len(shape) != len(full) or any(
        have not in (1, want) for have, want in zip(shape, full, strict=True)
    ):
        raise ValueError(
            f"{layer.path_text}: atten_mask has shape {shape}, expected "
            f"{letters} = {full}, with 1 for a size where it is shared."
        )

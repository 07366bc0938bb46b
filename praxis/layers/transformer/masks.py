"""The masks that a transformer layer passes to its attentions."""

import dataclasses
from typing import Any, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis.layers.attention import masks
from praxis.layers.attention.attend import choose_implementation
from praxis.layers.attention.mask_spec import AttentionMask, as_mask, either_padded

Mask = Float[Array, "..."]


Given = TypeVar("Given")


def _required(value: Given | None, what: str, why: str) -> Given:
    if value is None:
        raise ValueError(f"{what} is None, but is required {why}.")
    return value


def attends_lazily(attention_tpl: Any, num_logits: int, *, drops: bool) -> bool:
    """Whether an attention layer never holds all logits, so that a mask need not exist as an array.

    Args:
      attention_tpl: Config of the layer. One with a field `implementation` takes an
        `AttentionMask` in place of an array.
      num_logits: T S.
      drops: Whether the layer drops probabilities in this call.
    """
    implementation = getattr(attention_tpl, "implementation", None)
    if implementation is None:
        return False
    chosen = choose_implementation(implementation, whole=drops, num_logits=num_logits)
    return chosen != "reference"


def lazy_attention_masks_for_fprop(
    inputs: Float[Array, "B T D"],
    paddings: Shaped[Array, "B T"] | None = None,
    causal_attention: bool = False,
    segment_mask: AttentionMask | Shaped[Array, "..."] | None = None,
    cross_inputs: Float[Array, "B S _"] | None = None,
    cross_paddings: Shaped[Array, "B S"] | None = None,
    cross_segment_mask: AttentionMask | Shaped[Array, "..."] | None = None,
    fold_padding_with_segment_mask: bool = False,
) -> tuple[AttentionMask, AttentionMask | None]:
    """The masks of `compute_attention_masks_for_fprop`, with the same arguments, as their rules.

    `segment_mask` and `cross_segment_mask` may be rules, too.
    """
    target_len = inputs.shape[1]
    if fold_padding_with_segment_mask:
        given = _required(segment_mask, "segment_mask", "with fold_padding_with_segment_mask")
        mask = as_mask(given, target_len, target_len)
    else:
        paddings = _required(paddings, "paddings", "without fold_padding_with_segment_mask")
        mask = AttentionMask(target_len=target_len, source_len=target_len, key_paddings=paddings)
        if segment_mask is not None:
            mask = mask.merge(as_mask(segment_mask, target_len, target_len))
    if causal_attention:
        mask = mask.merge(AttentionMask(target_len=target_len, source_len=target_len, causal=True))
    if cross_inputs is None:
        return mask, None
    cross_paddings = _required(cross_paddings, "cross_paddings", "with cross_inputs")
    lengths = {"target_len": target_len, "source_len": cross_inputs.shape[1]}
    cross_mask = as_mask(cross_segment_mask, **lengths)
    # Unlike in self-attention, a query has no key of its own, so that there is none to hide.
    hidden_keys = either_padded(cross_mask.key_paddings, cross_paddings)
    return mask, dataclasses.replace(cross_mask, key_paddings=hidden_keys)


def compute_attention_masks_for_fprop(
    inputs: Float[Array, "B T D"],
    paddings: Shaped[Array, "B T"] | None = None,
    causal_attention: bool = False,
    segment_mask: Shaped[Array, "..."] | None = None,
    cross_inputs: Float[Array, "B S _"] | None = None,
    cross_paddings: Shaped[Array, "B S"] | None = None,
    cross_segment_mask: Shaped[Array, "..."] | None = None,
    fold_padding_with_segment_mask: bool = False,
) -> tuple[Mask, Mask | None]:
    """Builds the masks of self-attention and cross-attention over whole sequences.

    Args:
      inputs: [B, T, D], read for T and the dtype of the masks only.
      paddings: [B, T], 1 marks padding.
      causal_attention: Whether queries see no later keys.
      segment_mask: [B, 1, T, T], of packed rows; None if rows are not packed.
      cross_inputs: [B, S, D], what cross-attention attends to; None if there is none.
      cross_paddings: [B, S], 1 marks padding.
      cross_segment_mask: [B, 1, T, S], of packed rows.
      fold_padding_with_segment_mask: `segment_mask` hides the padding already, so that paddings
        are not read.

    Returns:
      The mask of self-attention, [B, 1, T, T] (or 1 for the first T, if neither segments nor
      causality tell queries apart), and that of cross-attention, or None.

    Raises:
      ValueError: if an argument that is needed is None.
    """
    mask, cross_mask = lazy_attention_masks_for_fprop(
        inputs,
        paddings,
        causal_attention=causal_attention,
        segment_mask=segment_mask,
        cross_inputs=cross_inputs,
        cross_paddings=cross_paddings,
        cross_segment_mask=cross_segment_mask,
        fold_padding_with_segment_mask=fold_padding_with_segment_mask,
    )
    arrays = mask.materialise(inputs.dtype)
    return arrays, None if cross_mask is None else cross_mask.materialise(inputs.dtype)


def compute_attention_masks_for_extend_step(
    time_step: int | Int[Array, ""],
    seq_len: int,
    segment_mask: Shaped[Array, "_ 1 T"] | None = None,
    cross_paddings: Shaped[Array, "b S"] | None = None,
    cross_segment_mask: Shaped[Array, "_ 1 S"] | None = None,
) -> tuple[Float[Array, "_ 1 T"], Mask | None]:
    """Builds the masks of self-attention and cross-attention for one decoding step.

    Args:
      time_step: The step; later keys are hidden.
      seq_len: T, the length of the cache.
      segment_mask: [B, 1, T], of packed rows; None if rows are not packed.
      cross_paddings: [B, S], 1 marks padding; None if there is no cross-attention.
      cross_segment_mask: [B, 1, S], of packed rows.

    Returns:
      The mask of self-attention, [B or 1, 1, T], and that of cross-attention, [B, 1, 1, S], or
      None; float32.
    """
    keep = (jnp.arange(seq_len) <= time_step)[jnp.newaxis, jnp.newaxis]
    mask = masks.mask_from_keep(keep)  # [1, 1, T]
    if segment_mask is not None:
        mask = jnp.minimum(mask, segment_mask)
    if cross_paddings is None:
        return mask, None
    cross_mask = masks.convert_paddings_to_mask(cross_paddings, jnp.float32)
    if cross_segment_mask is not None:
        cross_mask = jnp.minimum(cross_mask, cross_segment_mask[:, :, jnp.newaxis])
    return mask, cross_mask

"""Attention by a kernel of the accelerator, where one computes what is asked."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from praxis.layers.attention.blockwise import blockwise_attention
from praxis.layers.attention.mask_spec import AttentionMask, as_mask

Kernel = Literal["cudnn", "xla"]

# What cuDNN's attention takes on all GPUs that have it.
_CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
_CUDNN_HEAD_DIMS = 128


def fused_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K _"],
    mask: Any = None,
    *,
    bias: Float[Array, "_ _ _ S"] | None = None,
    cap: float = 0.0,
    extra_logit: float | None = None,
    logits_scale: float = 1.0,
    zero_fully_masked: bool = False,
    kernel: Kernel | None = None,
) -> Float[Array, "B T N H"]:
    """Computes `softmax(mask(logits_scale * (query . key + bias))) . value` in one kernel.

    `jax.nn.dot_product_attention` calls it. Kernels have no soft cap and no extra logit: with these
    this is `blockwise_attention`. A causal mask, also with a window to the left, is passed as such.
    Any other mask becomes an array of booleans, [B, 1, T, S], which "cudnn" adds to the bias.

    Args:
      query: [B, T, N, H], already scaled.
      key: [B, S, K, H]; K divides N.
      value: [B, S, K, H].
      mask: As in `blockwise_attention`.
      bias: As in `blockwise_attention`.
      cap: Soft cap of the logits, 0 for none.
      extra_logit: Logit of a key of value 0 that all queries see; None for none.
      logits_scale: Multiplies the logits, and the bias with them.
      zero_fully_masked: Make the context of a query that sees no key 0, not the mean of all values.
      kernel: "cudnn" is NVIDIA's; "xla" makes all logits at once. None takes "cudnn" on a GPU that
        has it for these dtypes and sizes, and `blockwise_attention` elsewhere.

    Returns:
      The context [B, T, N, H].
    """
    if kernel is None and _cudnn_takes(query, key, value):
        kernel = "cudnn"
    if kernel is None or cap > 0.0 or extra_logit is not None or key.shape != value.shape:
        return blockwise_attention(
            query,
            key,
            value,
            mask,
            bias=bias,
            cap=cap,
            extra_logit=extra_logit,
            logits_scale=logits_scale,
            zero_fully_masked=zero_fully_masked,
        )
    spec = _kernel_mask(as_mask(mask, query.shape[1], key.shape[1]))
    context = jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=None if bias is None else (bias * logits_scale).astype(query.dtype),
        mask=spec.keep,
        scale=logits_scale,
        is_causal=spec.is_causal,
        local_window_size=spec.window,
        implementation=kernel,
    )
    if spec.blind is None:
        return context
    return jnp.where(spec.blind, _blind_context(value, query.shape[2], zero_fully_masked), context)


def _cudnn_takes(query: Array, key: Array, value: Array) -> bool:
    """Whether the default device is an NVIDIA GPU, with the dtypes and sizes that cuDNN takes."""
    width = query.shape[-1]
    lengths = (query.shape[1], key.shape[1])
    return (
        jax.default_backend() == "gpu"
        and "nvidia" in jax.devices()[0].device_kind.lower()
        and query.dtype in _CUDNN_DTYPES
        and query.dtype == key.dtype == value.dtype
        and width <= _CUDNN_HEAD_DIMS
        and width % 8 == 0
        and all(length % 2 == 0 for length in lengths)
    )


class _KernelMask(NamedTuple):
    """A mask in the words of `jax.nn.dot_product_attention`.

    Attributes:
      is_causal: Whether keys after the query are hidden.
      window: Keys seen before and after the query, which does not count; None for no limit.
      keep: [B, N, T, S], with 1 where shared; None where the former say it all.
      blind: [B, T, N, 1], likewise: queries that see no key, which `keep` lets see all; None where
        there are none.
    """

    is_causal: bool
    window: tuple[int, int] | None
    keep: Bool[Array, "_ _ _ S"] | None
    blind: Bool[Array, "_ _ _ 1"] | None


def _kernel_mask(mask: AttentionMask) -> _KernelMask:
    plain = mask.has_no_arrays() and mask.target_len == mask.source_len
    left, right = (None, None) if mask.window is None else mask.window
    is_causal = mask.causal or right == 0
    if plain and mask.window is None:
        return _KernelMask(is_causal, None, None, None)
    if plain and is_causal and (left is None or left > 0) and (right is None or right >= 0):
        # All queries see themselves at least.
        window = None if left is None else (left - 1, 0)
        return _KernelMask(True, window, None, None)
    keep = mask.block(0, mask.shape[2], 0, mask.source_len)
    blind = ~jnp.any(keep, axis=-1, keepdims=True)  # [B, N, T, 1]
    # A kernel may give NaN for a query that sees nothing, which a gradient of 0 does not undo.
    return _KernelMask(False, None, keep | blind, jnp.swapaxes(blind, 1, 2))


def _blind_context(
    value: Float[Array, "B S K H"], num_heads: int, zero_fully_masked: bool
) -> Float[Array, "_ 1 _ _"]:
    """What a query that sees no key gets: the mean of all values, or 0."""
    if zero_fully_masked:
        return jnp.zeros([1, 1, 1, 1], value.dtype)
    wide = jnp.promote_types(value.dtype, jnp.float32)
    mean = jnp.mean(value, axis=1, keepdims=True, dtype=wide).astype(value.dtype)  # [B, 1, K, H]
    return jnp.repeat(mean, num_heads // value.shape[2], axis=2)

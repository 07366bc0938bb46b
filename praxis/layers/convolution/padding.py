"""What a convolution adds at the ends of an axis, and which of its outputs count as padding.

k is the size of a kernel along an axis, d its dilation, and e = d * (k - 1) + 1 what it spans.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped


def causal_padding(filter_shape: int, dilation_rate: int) -> int:
    """Returns e - 1: zeros before the start, so that an output sees no later input.

    Args:
      filter_shape: k.
      dilation_rate: d.
    """
    return dilation_rate * (filter_shape - 1)


def same_padding(filter_shape: int, dilation_rate: int) -> tuple[int, int]:
    """Splits the e - 1 zeros over both ends, whatever stride and input size are; the end gets more.

    With a stride above 1, XLA and TensorFlow understand "SAME" in another way.
    """
    total = causal_padding(filter_shape, dilation_rate)
    return total // 2, total - total // 2


def conv_padding(
    kernel_shape: Sequence[int],
    dilations: Sequence[int],
    *,
    padding: str,
    tf_equivalent_padding: bool = False,
    is_causal: bool = False,
) -> str | list[tuple[int, int]]:
    """Returns what `lax.conv_general_dilated` takes as padding.

    Args:
      kernel_shape: k of each axis.
      dilations: d of each axis.
      padding: "SAME" or "VALID".
      tf_equivalent_padding: Leave "SAME" to XLA.
      is_causal: Causal along the first axis; the others are padded as in `same_padding`.
    """
    if is_causal:
        (first, *others), (rate, *rates) = kernel_shape, dilations
        rest = [same_padding(k, d) for k, d in zip(others, rates, strict=True)]
        return [(causal_padding(first, rate), 0), *rest]
    if tf_equivalent_padding or padding == "VALID":
        return padding
    return [same_padding(k, d) for k, d in zip(kernel_shape, dilations, strict=True)]


def same_output_paddings(
    paddings: Shaped[Array, "B T"], stride: int, *, from_last: bool = False
) -> Shaped[Array, "B _"]:
    """Paddings of the outputs of a convolution that is padded as "SAME".

    Args:
      paddings: [B, T], 1 marks padding.
      stride: Output i counts as padding if frame i * stride does.
      from_last: It does if frame (i + 1) * stride - 1 does, or if there is no such frame.

    Returns:
      [B, ceil(T / stride)].
    """
    if not from_last:
        return paddings[:, ::stride]
    missing = -paddings.shape[1] % stride
    return jnp.pad(paddings, ((0, 0), (0, missing)), constant_values=1)[:, stride - 1 :: stride]


def valid_output_paddings(
    paddings: Shaped[Array, "B T"], *, window: int, stride: int, dilation: int
) -> Shaped[Array, "B _"]:
    """Paddings of the outputs of an unpadded convolution: 1 where the whole window is padding."""
    return lax.reduce_window(
        paddings,
        np.asarray(1, paddings.dtype),
        lax.min,
        window_dimensions=(1, window),
        window_strides=(1, stride),
        padding="VALID",
        window_dilation=(1, dilation),
    )

"""Moves numbers between axes of a video."""

from collections.abc import Callable
from typing import Any

import einops
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped


def scan_function(fn: Callable[[Any], Any], in_axis: int = 0) -> Callable[[Any], Any]:
    """Returns a function that calls `fn` on one slice after the other, to save memory.

    Args:
      fn: Takes and returns an array; the slices that it gets have size 1 along the axis, which it
        may change.
      in_axis: The axis of the inputs that is sliced, and that the results are joined along.
    """

    def scanned(inputs: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        slices = jnp.expand_dims(jnp.moveaxis(inputs, in_axis, 0), in_axis % inputs.ndim + 1)
        _, outputs = lax.scan(lambda carry, part: (carry, fn(part)), None, slices)
        # A scan stacks in front; joined, the slices follow each other on their own axis.
        axis = in_axis % (outputs.ndim - 1)
        outputs = jnp.moveaxis(outputs, 0, axis)
        shape = list(outputs.shape)
        shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
        return outputs.reshape(shape)

    return scanned


def depth_to_space(
    x: Shaped[Array, "B T H W C"], t_stride: int, filters: int
) -> Shaped[Array, "B _ _ _ F"]:
    """Lays channels out as frames and pixels: more of both, in each direction.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network", 2016, arXiv:1609.05158.

    Args:
      x: [B, T, H, W, R * 2 * 2 * F]; the frame varies slowest among the channels.
      t_stride: R, frames that one becomes.
      filters: F.

    Returns:
      [B, T * R, 2 * H, 2 * W, F].

    Raises:
      ValueError: if the channels are another number.
    """
    if x.ndim != 5 or x.shape[-1] != 4 * t_stride * filters:
        raise ValueError(
            f"depth_to_space: x has shape {x.shape}, expected [B, T, H, W, C] with C = t_stride * "
            f"2 * 2 * filters = {t_stride} * 4 * {filters} = {4 * t_stride * filters}."
        )
    return einops.rearrange(
        x, "b t h w (r p q f) -> b (t r) (h p) (w q) f", r=t_stride, p=2, q=2, f=filters
    )


def upsample(x: Shaped[Array, "B T H W C"], t_stride: int) -> Shaped[Array, "B _ _ _ C"]:
    """Repeats every frame `t_stride` times and every pixel twice in both directions."""
    return einops.repeat(x, "b t h w c -> b (t r) (h p) (w q) c", r=t_stride, p=2, q=2)

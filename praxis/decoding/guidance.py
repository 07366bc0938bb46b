"""Classifier-free guidance: logits with and without a condition, mixed.

Rows come in pairs, one with the condition and one without: [B / 2, 2] is B. With n samples of each
row there are N = B * n rows, [B / 2, 2, n].
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def scale_of_samples(
    scale: float | list[float] | Shaped[Array, "..."], num_pairs: int, num_samples: int
) -> Float[Array, "B n"]:
    """Scales of all samples of all pairs.

    Args:
      scale: One number; a list with one for each sample; or an array for each pair, [B / 2], or
        for each sample of it, [B / 2, n].
      num_pairs: B / 2.
      num_samples: n.

    Raises:
      ValueError: if it is none of these.
    """
    by_sample = isinstance(scale, list | tuple)
    value = jnp.asarray(scale, jnp.float32)
    shape = (num_pairs, num_samples)
    if value.ndim == 0 or value.shape == shape:
        return jnp.broadcast_to(value, shape)
    if value.shape == (num_pairs,) and not by_sample:
        return jnp.broadcast_to(value[:, jnp.newaxis], shape)
    if value.shape == (num_samples,):
        return jnp.broadcast_to(value[jnp.newaxis], shape)
    raise ValueError(
        f"sample_decode: cf_guidance_scale has shape {value.shape}, expected a number, a list of "
        f"num_samples = {num_samples} numbers, or an array [{num_pairs}] or "
        f"[{num_pairs}, {num_samples}] for the {num_pairs} pairs of rows."
    )


def mix(logits: Float[Array, "N V"], scale: Float[Array, "B n"]) -> Float[Array, "N V"]:
    """Mixes the logits of each pair: without + scale * (with - without), the same for both rows.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv:2207.12598, equation 6, with
    scale 1 + w.
    """
    num_pairs, num_samples = scale.shape
    pairs = logits.reshape(num_pairs, 2, num_samples, -1)
    given, free = pairs[:, 0], pairs[:, 1]
    mixed = free + scale[..., jnp.newaxis].astype(logits.dtype) * (given - free)
    return jnp.broadcast_to(mixed[:, jnp.newaxis], pairs.shape).reshape(logits.shape)


def copy_to_pairs(x: Shaped[Array, " N"], scale: Float[Array, "B n"]) -> Shaped[Array, " N"]:
    """Gives the row without condition what the row with it has."""
    num_pairs, num_samples = scale.shape
    pairs = x.reshape(num_pairs, 2, num_samples)
    return jnp.broadcast_to(pairs[:, :1], pairs.shape).reshape(x.shape)


def conditioned(x: Any) -> Any:
    """Of results [B, ...], those of the rows with condition, [B / 2, ...]."""
    return x[::2]

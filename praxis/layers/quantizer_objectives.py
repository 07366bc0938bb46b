"""How evenly a batch uses the codes of a codebook."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

# Probabilities below this count as this, where their log is taken.
TINY = 1e-30


def scatter_nd(
    indices: Int[Array, "*B R"], updates: Shaped[Array, "..."], shape: Sequence[int]
) -> Shaped[Array, "..."]:
    """Adds updates up at places of an array of zeros.

    Args:
      indices: [..., R], each a place in the first R axes of the result; those outside of it are
        left out.
      updates: [...], or [..., *shape[R:]].
      shape: Of the result, R axes or more.
    """
    places = tuple(jnp.moveaxis(indices, -1, 0))
    return jnp.zeros(shape, updates.dtype).at[places].add(updates, mode="drop")


def _histogram(
    codes: Int[Array, "*B G"],
    num_classes: int,
    paddings: Shaped[Array, "*B"] | None,
    data_parallel_axis: str | None,
) -> tuple[Float[Array, "G C"], Float[Array, ""]]:
    """How often each group has each code, and the number of frames; without padding."""
    num_groups = codes.shape[-1]
    frames = codes.reshape(-1, num_groups)
    weights = jnp.ones([frames.shape[0]], jnp.float32)
    if paddings is not None:
        weights -= paddings.reshape(-1).astype(jnp.float32)
    groups = jnp.broadcast_to(jnp.arange(num_groups, dtype=frames.dtype), frames.shape)
    histogram = scatter_nd(
        jnp.stack([groups, frames], axis=-1),
        jnp.broadcast_to(weights[:, jnp.newaxis], frames.shape),
        (num_groups, num_classes),
    )
    num_frames = jnp.sum(weights)
    if data_parallel_axis is not None:
        histogram, num_frames = lax.psum((histogram, num_frames), data_parallel_axis)
    return histogram, num_frames


def batch_pplx_entropy_from_codes(
    codes: Int[Array, "*B G"],
    num_classes: int,
    *,
    paddings: Shaped[Array, "*B"] | None = None,
    data_parallel_axis: str | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "G C"]]:
    """Perplexity and entropy of the codes of a batch.

    Args:
      codes: [..., G], below C, in G groups with a codebook each.
      num_classes: C, codes in a codebook.
      paddings: [...], 1 marks frames that do not count; None: all count.
      data_parallel_axis: Name of a mapped axis whose batches are counted together.

    Returns:
      The mean perplexity of the groups, at most C; its logarithm, nats; how often each group has
      each code, [G, C].
    """
    histogram, num_frames = _histogram(codes, num_classes, paddings, data_parallel_axis)
    probs = histogram / jnp.maximum(num_frames, 1.0)
    entropies = -jnp.sum(probs * jnp.log(jnp.maximum(probs, TINY)), axis=-1)
    perplexity = jnp.mean(jnp.exp(entropies))
    return perplexity, jnp.log(perplexity), histogram


def batch_codebook_coverage(
    codes: Int[Array, "*B G"],
    num_classes: int,
    *,
    paddings: Shaped[Array, "*B"] | None,
    data_parallel_axis: str | None = None,
) -> Float[Array, ""]:
    """The share of all codes that a batch has, in the mean of the groups; 0 to 1.

    Args:
      codes: [..., G], below C, in G groups with a codebook each.
      num_classes: C, codes in a codebook.
      paddings: [...], 1 marks frames that do not count; None: all count.
      data_parallel_axis: Name of a mapped axis whose batches are counted together.
    """
    histogram, _ = _histogram(codes, num_classes, paddings, data_parallel_axis)
    return jnp.mean((histogram > 0).astype(jnp.float32))


__all__ = ["batch_codebook_coverage", "batch_pplx_entropy_from_codes", "scatter_nd"]

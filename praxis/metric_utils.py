"""Metrics of predictions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def top_k_accuracy(
    top_k: int,
    logits: Float[Array, "*B C"],
    label_ids: Int[Array, "*B"] | None = None,
    label_probs: Float[Array, "*B C"] | None = None,
    weights: Float[Array, "*B"] | None = None,
) -> Float[Array, ""]:
    """Share of examples whose label is among the `top_k` largest logits; ties count as correct.

    Args:
      top_k: From 1 to C.
      logits: [..., C].
      label_ids: [...], class of each example.
      label_probs: [..., C], used without `label_ids`: the likeliest class is the label.
      weights: [...], weights of the examples, 1 by default.

    Returns:
      The weighted sum over the correct examples, over the sum of all weights or 1 if that is
      larger; float32.

    Raises:
      ValueError: without labels, or if `top_k` is not between 1 and C.
    """
    num_classes = logits.shape[-1]
    if not 1 <= top_k <= num_classes:
        raise ValueError(
            f"top_k_accuracy: top_k is {top_k}, expected 1 to {num_classes}, the classes of logits "
            f"of shape {logits.shape}."
        )
    if label_ids is None:
        if label_probs is None:
            raise ValueError("top_k_accuracy: pass label_ids or label_probs, got neither.")
        label_ids = jnp.argmax(label_probs, axis=-1)
    label_logits = jnp.take_along_axis(logits, label_ids[..., jnp.newaxis], axis=-1)[..., 0]
    threshold = jax.lax.top_k(logits, top_k)[0][..., -1]
    correct = (label_logits >= threshold).astype(jnp.float32)
    weights = jnp.ones_like(correct) if weights is None else weights.astype(jnp.float32)
    return jnp.sum(correct * weights) / jnp.maximum(1.0, jnp.sum(weights))

"""The axis of samples: splitting it from the batch, and sorting along it."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Shaped

from praxis import py_utils

NestedMap = py_utils.NestedMap

# A log-probability of a place without a token.
NO_LOGPROB = 1.0


def split_batch_dim(
    x: Shaped[Array, "..."], batch_dim: int, num_samples: int
) -> Shaped[Array, "..."]:
    """Splits a batch axis B * n into [B, n].

    Raises:
      ValueError: if it is not a multiple of `num_samples`.
    """
    size = x.shape[batch_dim]
    if size % num_samples:
        raise ValueError(
            f"split_batch_dim: axis {batch_dim} of shape {x.shape} is not a multiple of "
            f"num_samples = {num_samples}."
        )
    shape = (*x.shape[:batch_dim], size // num_samples, num_samples, *x.shape[batch_dim + 1 :])
    return x.reshape(shape)


def reorder_with_indices(
    x: Shaped[Array, "B n ..."], indices: Int[Array, "B n"]
) -> Shaped[Array, "B n ..."]:
    """Takes the entries of axis 1 in the order of `indices`, for each row."""
    trailing = (1,) * (x.ndim - 2)
    return jnp.take_along_axis(x, indices.reshape(*indices.shape, *trailing), axis=1)


def sort_samples_by_scores(result: NestedMap, top_k_recall_target: float = 0.85) -> NestedMap:
    """Sorts samples by falling log-probability.

    Args:
      result: Arrays [B, n, ...], among them `logprobs` [B, n, S], where 1 and more is no token.
      top_k_recall_target: Below 1, the share of samples that an approximate search finds.
    """
    tokens = jnp.where(result.logprobs >= NO_LOGPROB, 0.0, result.logprobs)
    scores = jnp.sum(tokens.astype(jnp.float32), axis=-1)  # [B, n]
    num_samples = scores.shape[1]
    if top_k_recall_target < 1.0:
        _, order = lax.approx_max_k(scores, num_samples, recall_target=top_k_recall_target)
    else:
        _, order = lax.top_k(scores, num_samples)
    return result.Transform(lambda x: reorder_with_indices(x, order))

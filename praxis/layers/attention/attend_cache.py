"""Attention of decoding steps to a cache, whose rows several queries may share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis.layers.attention import score
from praxis.layers.attention.attend import (
    Attended,
    Einsum,
    combine_heads,
    probs_of_logits,
    score_heads,
)


class Chunk(NamedTuple):
    """Keys and values of some steps.

    Attributes:
      key: [b, S, K, H]; b divides the batch of the queries.
      value: [b, S, K, H].
    """

    key: Float[Array, "b S K H"]
    value: Float[Array, "b S K _"]


def attend_to_chunks(
    query: Float[Array, "B T N H"],
    chunks: Sequence[Chunk],
    mask: Any,
    *,
    bias: Float[Array, "_ _ _ S"] | None = None,
    cap: float = 0.0,
    extra_logit: float | None = None,
    logits_scale: float = 1.0,
    zero_fully_masked: bool = False,
    qk_einsum: Einsum = jnp.einsum,
    pv_einsum: Einsum = jnp.einsum,
    observe_logits: Callable[[Float[Array, "..."]], None] | None = None,
) -> Attended:
    """Attends to chunks of keys that follow each other in time, with one softmax over all.

    B / b consecutive queries share a row of a chunk with b rows, which is read once for them: a
    prompt that several samples continue is in memory, and is read, once.

    Args:
      query: [B, T, N, H], already scaled.
      chunks: Of b_i rows and S_i steps, S in all.
      mask: [B, N, T, S], with 1 for a size where it is shared; or with b rows, shared as above.
        As in `attend`.
      bias: As in `attend`.
      cap: As in `attend`.
      extra_logit: As in `attend`.
      logits_scale: As in `attend`.
      zero_fully_masked: As in `attend`.
      qk_einsum: As in `attend`.
      pv_einsum: As in `attend`.
      observe_logits: As in `attend`.
    """
    batch = query.shape[0]
    logits = [_score_shared(query, chunk.key, qk_einsum) for chunk in chunks]
    mask = _repeat_rows(mask, batch)
    probs = probs_of_logits(
        jnp.concatenate(logits, axis=-1) if len(logits) > 1 else logits[0],  # [B, N, T, S]
        mask,
        bias=bias,
        cap=cap,
        extra_logit=extra_logit,
        logits_scale=logits_scale,
        observe_logits=observe_logits,
    ).astype(chunks[-1].key.dtype)
    context, start = None, 0
    for chunk in chunks:
        stop = start + chunk.key.shape[1]
        part = _combine_shared(probs[..., start:stop], chunk.value, pv_einsum)
        context = part if context is None else context + part
        start = stop
    assert context is not None  # there is a chunk
    if zero_fully_masked and mask is not None:
        context = score.zero_blind_queries(context, mask)
    return Attended(context, probs)


def _repeat_rows(mask: Any, batch: int) -> Any:
    """A mask of B rows, or of 1, from one of b rows."""
    if mask is None or mask.shape[0] in (1, batch):
        return mask
    return jnp.repeat(mask, batch // mask.shape[0], axis=0)


def _score_shared(
    query: Float[Array, "B T N H"], key: Float[Array, "b S K H"], einsum: Einsum
) -> Float[Array, "B N T S"]:
    """Products of queries and the keys of the row they share."""
    batch, target_len, num_heads, _ = query.shape
    rows, source_len = key.shape[:2]
    if rows == batch:
        return score_heads(query, key, einsum)
    # The queries of a row become its time axis, so that keys are not repeated.
    logits = score_heads(query.reshape(rows, -1, *query.shape[2:]), key, einsum)
    logits = logits.reshape(rows, num_heads, batch // rows, target_len, source_len)
    return jnp.swapaxes(logits, 1, 2).reshape(batch, num_heads, target_len, source_len)


def _combine_shared(
    probs: Float[Array, "B N T S"], value: Float[Array, "b S K H"], einsum: Einsum
) -> Float[Array, "B T N H"]:
    """Averages of the values of the row that queries share."""
    batch, num_heads, target_len, source_len = probs.shape
    rows = value.shape[0]
    if rows == batch:
        return combine_heads(probs, value, einsum)
    grouped = probs.reshape(rows, batch // rows, num_heads, target_len, source_len)
    grouped = jnp.swapaxes(grouped, 1, 2).reshape(rows, num_heads, -1, source_len)
    context = combine_heads(grouped, value, einsum)  # [b, B / b T, N, H]
    return context.reshape(batch, target_len, *context.shape[2:])


def mask_of_steps(mask: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """A mask [B, 1, S] of one step as [B, 1, 1, S]; one of several steps stays [B, 1, T, S]."""
    return mask[:, :, jnp.newaxis] if mask.ndim == 3 else mask

"""Attention of heads to heads: the function with which all attention layers score and combine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from praxis.layers.attention import score

Einsum = Callable[..., Any]
Probs = Float[Array, "..."]

IMPLEMENTATIONS = ("auto", "reference", "blockwise", "fused")

# "auto" goes blockwise from this many logits of one head on: 2048 queries by 2048 keys, where the
# float32 logits and probabilities of one head of one example take 32 MiB.
BLOCKWISE_FROM_LOGITS = 2**22


class Attended(NamedTuple):
    """What attention gives.

    Attributes:
      context: [B, T, N, H], the averaged values.
      probs: [B, N, T, S], after dropout, in the dtype of keys; None where they are not computed.
    """

    context: Float[Array, "B T N H"]
    probs: Float[Array, "B N T S"] | None


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K _"],
    mask: Any,
    *,
    bias: Float[Array, "_ _ _ S"] | None = None,
    cap: float = 0.0,
    extra_logit: float | None = None,
    logits_scale: float = 1.0,
    zero_fully_masked: bool = False,
    dropout: Callable[[Probs], Probs] | None = None,
    qk_einsum: Einsum = jnp.einsum,
    pv_einsum: Einsum = jnp.einsum,
    implementation: str = "reference",
    need_probs: bool = False,
    observe_logits: Callable[[Float[Array, "..."]], None] | None = None,
) -> Attended:
    """Computes `softmax(mask(cap(logits_scale * (query . key + bias)))) . value`.

    The softmax is float32 or wider, see `score.attention_probs`. With fewer key-value heads than
    query heads, K < N, N / K consecutive query heads read one key-value head (Ainslie et al.,
    "GQA", 2023, arXiv:2305.13245); keys and values are not repeated for it.

    Args:
      query: [B, T, N, H], already scaled.
      key: [B, S, K, H]; K divides N.
      value: [B, S, K, H].
      mask: [B, N, T, S], with 1 for a size where it is shared: additive, or booleans with True for
        attending. Or a lazy `AttentionMask`, or None where every query sees every key.
      bias: Added to the logits, [B, N, T, S], with 1 for B, N or T where it is shared.
      cap: Soft cap of the logits, see `score.cap_logits`; 0 for none.
      extra_logit: Logit of a key of value 0 that all queries see; None for none.
      logits_scale: Multiplies the logits, and the bias with them.
      zero_fully_masked: Make the context of a query that sees no key 0, not the mean of all values.
      dropout: Of the probabilities; None for none.
      qk_einsum: Multiplies queries and keys.
      pv_einsum: Multiplies probabilities and values.
      implementation: "reference" computes all logits at once; "blockwise" a block of them at a
        time, in memory linear in T and S; "fused" with a kernel of the accelerator; "auto" is
        blockwise from `BLOCKWISE_FROM_LOGITS` logits on if nothing here needs them all at once.
      need_probs: Whether the probabilities are read; they stay None only without it.
      observe_logits: Called with the logits before the cap, e.g. to report them.

    Returns:
      The context and, from "reference" alone, the probabilities.

    Raises:
      ValueError: if `implementation` is not known, or is "blockwise" or "fused" and an argument
        asks for all probabilities at once.
    """
    check_implementation("attend", implementation)
    wholes = [
        name
        for name, asked in (
            ("dropout", dropout is not None),
            ("qk_einsum", qk_einsum is not jnp.einsum),
            ("pv_einsum", pv_einsum is not jnp.einsum),
            ("need_probs", need_probs),
        )
        if asked
    ]
    chosen = choose_implementation(
        implementation, whole=bool(wholes), num_logits=query.shape[1] * key.shape[1]
    )
    if chosen != "reference":
        if wholes:
            raise ValueError(
                f"attend: implementation = {chosen!r} never holds all probabilities, but "
                f"{' and '.join(wholes)} asks for them. Pass implementation='reference'."
            )
        context = _without_probs(chosen)(
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
        return Attended(context, None)

    mask = as_array(mask)
    probs = probs_of_logits(
        score_heads(query, key, qk_einsum),
        mask,
        bias=bias,
        cap=cap,
        extra_logit=extra_logit,
        logits_scale=logits_scale,
        observe_logits=observe_logits,
    ).astype(key.dtype)
    if dropout is not None:
        probs = dropout(probs)
    context = combine_heads(probs, value, pv_einsum)
    if zero_fully_masked and mask is not None:
        context = score.zero_blind_queries(context, mask)
    return Attended(context, probs)


def probs_of_logits(
    logits: Float[Array, "B N T S"],
    mask: Any,
    *,
    bias: Float[Array, "_ _ _ S"] | None,
    cap: float,
    extra_logit: float | None,
    logits_scale: float,
    observe_logits: Callable[[Float[Array, "..."]], None] | None,
) -> Float[Array, "B N T S"]:
    """From products of queries and keys to probabilities, float32 or wider; see `attend`."""
    if bias is not None:
        logits += jnp.broadcast_to(bias, logits.shape)
    logits = checkpoint_name(logits, "logits")
    if logits_scale != 1.0:
        logits *= logits_scale
    if observe_logits is not None:
        observe_logits(logits)
    return score.attention_probs(logits, mask, cap=cap, extra_logit=extra_logit)


def check_implementation(owner: str, implementation: str) -> None:
    """Refuses an `implementation` that is not known.

    Raises:
      ValueError: starting with `owner`.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"{owner}: implementation is {implementation!r}, expected one of {IMPLEMENTATIONS}."
        )


def choose_implementation(implementation: str, *, whole: bool, num_logits: int) -> str:
    """What "auto" stands for; any other implementation is returned as it is.

    Args:
      implementation: One of `IMPLEMENTATIONS`.
      whole: Whether something needs all probabilities at once.
      num_logits: T S.
    """
    if implementation != "auto":
        return implementation
    return "blockwise" if num_logits >= BLOCKWISE_FROM_LOGITS and not whole else "reference"


def as_array(mask: Any) -> Any:
    """The array that a lazy mask stands for; an array and None are returned as they are."""
    return mask.materialise(jnp.float32) if hasattr(mask, "materialise") else mask


def score_heads(
    query: Float[Array, "B T N H"], key: Float[Array, "B S K H"], einsum: Einsum = jnp.einsum
) -> Float[Array, "B N T S"]:
    """Products of queries and keys, [B, N, T, S]."""
    batch, target_len, num_heads, _ = query.shape
    source_len, num_kv_heads = key.shape[1:3]
    if num_kv_heads == num_heads:
        return einsum("BTNH,BSNH->BNTS", query, key)
    grouped = query.reshape(batch, target_len, num_kv_heads, num_heads // num_kv_heads, -1)
    logits = einsum("BTKGH,BSKH->BKGTS", grouped, key)
    return logits.reshape(batch, num_heads, target_len, source_len)


def combine_heads(
    probs: Float[Array, "B N T S"], value: Float[Array, "B S K H"], einsum: Einsum = jnp.einsum
) -> Float[Array, "B T N H"]:
    """Averages of the values, [B, T, N, H]."""
    batch, num_heads, target_len, source_len = probs.shape
    num_kv_heads = value.shape[2]
    if num_kv_heads == num_heads:
        return einsum("BNTS,BSNH->BTNH", probs, value)
    groups = num_heads // num_kv_heads
    grouped = probs.reshape(batch, num_kv_heads, groups, target_len, source_len)
    context = einsum("BKGTS,BSKH->BTKGH", grouped, value)
    return context.reshape(batch, target_len, num_heads, -1)


def _without_probs(implementation: str) -> Callable[..., Float[Array, "B T N H"]]:
    """The function that gives the context alone, imported when it is first needed."""
    if implementation == "blockwise":
        from praxis.layers.attention.blockwise import blockwise_attention

        return blockwise_attention
    from praxis.layers.attention.fused import fused_attention

    return fused_attention

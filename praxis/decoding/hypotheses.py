"""Choice among the continuations of several beginnings of texts."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

# Subtracted from the scores of continuations that must not be chosen.
TERMINAL_PENALTY = 1e9


def length_norm(
    t: int | float | Shaped[Array, "..."], length_norm_alpha: float
) -> float | Float[Array, "..."]:
    """Length penalty ((5 + t) / 5)^alpha of a text of t tokens; it is 1 for an empty one.

    Wu et al., "Google's Neural Machine Translation System", 2016, arXiv:1609.08144, equation 14,
    which divides by 6 instead.
    """
    return ((t + 5.0) / 5.0) ** length_norm_alpha


def two_stage_topk(
    logits: Float[Array, "B K V"],
    hyp_scores: Float[Array, "B K"],
    terminal_ids: Sequence[int],
    tokens_per_beam: int | None = None,
) -> tuple[Float[Array, "B M"], Int[Array, "B M"], Float[Array, "B K"], Int[Array, "B K"]]:
    """The best continuations of each beginning, and the K best of all.

    Args:
      logits: [B, K, V], log-probabilities of the next token.
      hyp_scores: [B, K], of the beginnings.
      terminal_ids: Tokens that end a text, which are not chosen as continuations.
      tokens_per_beam: Continuations of each beginning; None: K.

    Returns:
      Scores and tokens of the M = K * tokens_per_beam continuations; scores of the K best, and
      where these are among the M.
    """
    batch, beam_size = hyp_scores.shape
    scores, ids = lax.top_k(logits, tokens_per_beam or beam_size)  # [B, K, t]
    scores += hyp_scores[..., jnp.newaxis]
    for terminal in terminal_ids:
        scores -= TERMINAL_PENALTY * (ids == terminal).astype(scores.dtype)
    scores, ids = scores.reshape(batch, -1), ids.reshape(batch, -1)
    best_scores, best = lax.top_k(scores, beam_size)
    return scores, ids, best_scores, best


def gather_output_id(
    long_output_ids: Int[Array, "B M"], topk_indices: Int[Array, "B K"]
) -> Int[Array, "B K"]:
    """The tokens at the given places of each row."""
    return jnp.take_along_axis(long_output_ids, topk_indices, axis=1)


def gather_logprobs(
    logprobs: Float[Array, "B K V"], hyp_ids: Int[Array, "B M"], ids: Int[Array, "B M"]
) -> Float[Array, "B M"]:
    """The log-probability of each token after its beginning."""
    batch, _, vocab_size = logprobs.shape
    flat = logprobs.reshape(batch, -1)
    return jnp.take_along_axis(flat, hyp_ids * vocab_size + ids, axis=1)

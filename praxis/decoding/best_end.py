"""Texts generated without an end, ended afterwards where that is likeliest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from praxis import py_utils
from praxis.decoding.samples_axis import NO_LOGPROB
from praxis.decoding.stop import has_any_eos

NestedMap = py_utils.NestedMap


def eos_logprobs(
    logits: Float[Array, "N V"], eos_id: object, may_end: Bool[Array, " N"]
) -> tuple[Float[Array, " N"], Int[Array, " N"]]:
    """The log-probability of the likeliest end-of-text token of each row, and the token.

    Args:
      logits: [N, V].
      eos_id: Tokens that end a text.
      may_end: [N]; rows that must not end have log-probability 1, which is none.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    ids = jnp.asarray(eos_id, jnp.int32).reshape(-1)
    of_eos = log_probs[:, ids]
    best = jnp.max(of_eos, axis=-1)
    return jnp.where(may_end, best, NO_LOGPROB), ids[jnp.argmax(of_eos, axis=-1)]


def without_eos(logits: Float[Array, "N V"], eos_id: object) -> Float[Array, "N V"]:
    """Hides end-of-text tokens."""
    is_eos = has_any_eos(jnp.arange(logits.shape[-1]), eos_id)[jnp.newaxis]  # pyright: ignore[reportArgumentType]  # a token or tokens
    return jnp.where(is_eos, py_utils.get_large_negative_number(logits.dtype), logits)


def collect_results_to_optimize_eos(
    result: NestedMap, decode_length_shift: int | Int[Array, " N"] = 0
) -> NestedMap:
    """Ends each text where its log-probability, with that of the end, is greatest.

    Args:
      result: `output_ids` and `logprobs` [N, S]; `eos_logprobs` [N, S], of an end in place of each
        token, 1 where the text cannot end; `eos_ids` [N, S], with which token.
      decode_length_shift: Added to the lengths, which count from the first column.

    Returns:
      `result` with new `output_ids`, `logprobs` and `decode_lengths`, without `eos_logprobs` and
      `eos_ids`. A text that cannot end anywhere stays as it is.
    """
    result = NestedMap(result)
    of_eos, eos_ids = result.pop("eos_logprobs"), result.pop("eos_ids")
    tokens = jnp.where(result.logprobs >= NO_LOGPROB, 0.0, result.logprobs)
    before = jnp.cumsum(tokens, axis=1) - tokens
    scores = jnp.where(of_eos >= NO_LOGPROB, -jnp.inf, before + of_eos)
    best = jnp.argmax(scores, axis=1)[:, jnp.newaxis]  # [N, 1]
    can_end = jnp.any(of_eos < NO_LOGPROB, axis=1)[:, jnp.newaxis]
    place = jnp.arange(scores.shape[1])[jnp.newaxis]
    is_end, is_behind = can_end & (place == best), can_end & (place > best)

    def cut(x: jax.Array, end: jax.Array, behind: float | int) -> jax.Array:
        return jnp.where(is_end, end, jnp.where(is_behind, jnp.asarray(behind, x.dtype), x))

    result.output_ids = cut(result.output_ids, eos_ids, 0)
    result.logprobs = cut(result.logprobs, of_eos, NO_LOGPROB)
    lengths = (best[:, 0] + 1 + decode_length_shift).astype(jnp.int32)
    result.decode_lengths = jnp.where(can_end[:, 0], lengths, result.decode_lengths)
    return result

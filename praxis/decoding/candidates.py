"""The likeliest tokens of each step, reported beside the chosen ones."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from praxis import py_utils
from praxis.decoding.samples_axis import NO_LOGPROB

NestedMap = py_utils.NestedMap

# Most candidates that are reported for a token.
MAX_NUM_PER_TOKEN_LOGPROBS = 5


def initial(num_rows: int, seq_len: int) -> NestedMap:
    """Entries of the state of the loop: no candidates, [N, S, 5].

    Step i, counted from the first one that was generated, is at place i, whatever the prefix.
    """
    shape = (num_rows, seq_len, MAX_NUM_PER_TOKEN_LOGPROBS)
    return NestedMap(
        top_candidate_ids=jnp.zeros(shape, jnp.int32),
        top_candidate_logprobs=jnp.full(shape, NO_LOGPROB, jnp.float32),
    )


def record(
    state: NestedMap,
    logits: Float[Array, "N V"],
    num_candidates: Int[Array, " N"],
    done: Bool[Array, " N"],
    step: Int[Array, ""],
) -> NestedMap:
    """New entries of the state, with the candidates of a step.

    Args:
      state: The state.
      logits: [N, V].
      num_candidates: [N], how many to report, at most 5; further ones have id 0, log-probability 1.
      done: [N], of which rows nothing is reported.
      step: Counted from the first one.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    size = min(MAX_NUM_PER_TOKEN_LOGPROBS, logits.shape[-1])
    values, ids = lax.top_k(log_probs, size)
    missing = ((0, 0), (0, MAX_NUM_PER_TOKEN_LOGPROBS - size))
    values, ids = jnp.pad(values, missing), jnp.pad(ids, missing)
    wanted = jnp.where(done, 0, jnp.minimum(num_candidates.reshape(-1), size))
    keep = jnp.arange(MAX_NUM_PER_TOKEN_LOGPROBS)[jnp.newaxis] < wanted[:, jnp.newaxis]
    new = {
        "top_candidate_ids": jnp.where(keep, ids, 0).astype(jnp.int32),
        "top_candidate_logprobs": jnp.where(keep, values, NO_LOGPROB),
    }
    return NestedMap(
        {
            name: lax.dynamic_update_slice_in_dim(state[name], value[:, jnp.newaxis], step, axis=1)
            for name, value in new.items()
        }
    )

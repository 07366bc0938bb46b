"""Results that a loop hands out while it runs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from praxis import py_utils
from praxis.decoding.samples_axis import split_batch_dim

NestedMap = py_utils.NestedMap


@dataclasses.dataclass
class StreamingResultCallback:
    """What to do with new tokens every few steps.

    The functions are called while the loop is traced, so what is to happen on the host has to be
    in `jax.debug.callback` or `jax.experimental.io_callback`.

    Attributes:
      callback_fn: Gets a NestedMap of
        - output_ids: [B, n, I], the I = `interval_steps` newest tokens, zeros where there are none
        - decode_lengths: [B, n], how many of them belong to the text
        - scores: [B, n], log-probability of all tokens so far
        - done: [B, n], whether the text has ended
        - prefix_lengths: [B, n], zeros: there is no prefix in `output_ids`
        - top_candidate_ids, top_candidate_logprobs: [B, n, I, C], if the results have them
      interval_steps: I, at least 1. The last call, when all texts have ended, may have fewer.
      init_fn: Called before the loop, with the shape (B, n) of the texts.
      done_fn: Called after the loop.
    """

    callback_fn: Callable[[Any], None]
    interval_steps: int = 1
    init_fn: Callable[[int | Sequence[int]], None] | None = None
    done_fn: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise ValueError(
                f"StreamingResultCallback: interval_steps is {self.interval_steps}, expected at "
                "least 1 step."
            )


def maybe_report(
    callback: StreamingResultCallback,
    state: NestedMap,
    *,
    prefix_lengths: Int[Array, " N"],
    num_samples: int,
    is_last: Any,
) -> None:
    """Calls the callback if its interval is over, or the loop.

    Args:
      callback: The callback.
      state: The state after a step, see `loop.initial_state`.
      prefix_lengths: [N].
      num_samples: n.
      is_last: [], whether the loop ends here in any case.
    """
    interval = callback.interval_steps
    num_new = state.step - state.start_step
    due = (num_new % interval == 0) | jnp.all(state.done) | is_last

    def report() -> None:
        callback.callback_fn(_newest(state, prefix_lengths, num_new, interval, num_samples))

    lax.cond(due, report, lambda: None)


def _newest(
    state: NestedMap,
    prefix_lengths: Int[Array, " N"],
    num_new: Int[Array, ""],
    interval: int,
    num_samples: int,
) -> NestedMap:
    """The tokens since the last report, and what is known of the texts."""
    before = (num_new - 1) // interval * interval  # tokens in earlier reports
    first = state.start_step + 1 + before
    padded = jnp.pad(state.output_ids, ((0, 0), (0, interval)))
    ends = state.prefix_ends + state.decode_lengths - prefix_lengths
    in_text = jnp.where(state.done, ends - first, state.step + 1 - first)
    result = NestedMap(
        output_ids=lax.dynamic_slice_in_dim(padded, first, interval, axis=1),
        decode_lengths=jnp.clip(in_text, 0, interval).astype(jnp.int32),
        scores=jnp.sum(jnp.minimum(state.logprobs, 0.0), axis=1),
        done=state.done,
        prefix_lengths=jnp.zeros_like(state.decode_lengths),
    )
    for name in ("top_candidate_ids", "top_candidate_logprobs"):
        if name in state:
            values = jnp.pad(state[name], ((0, 0), (0, interval), (0, 0)))
            result[name] = lax.dynamic_slice_in_dim(values, before, interval, axis=1)
    return result.Transform(lambda x: split_batch_dim(x, 0, num_samples))

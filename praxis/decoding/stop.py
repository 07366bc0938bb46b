"""Where texts end: end-of-text tokens and stop sequences."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


def has_any_eos(
    arr: Shaped[Array, "*B"], eos_ids: int | Sequence[int] | Shaped[Array, "..."]
) -> Bool[Array, "*B"]:
    """Whether each token is one of the end-of-text tokens."""
    return jnp.isin(arr, jnp.asarray(eos_ids, dtype=arr.dtype).reshape(-1))


def end_with_sequences(
    stop_sequences: Int[Array, "B L"],
    output_ids: Int[Array, "B S"],
    decode_step: int | Int[Array, ""],
) -> Bool[Array, " B"]:
    """Whether the text up to a step ends with the stop sequence of its row.

    Args:
      stop_sequences: [B, L]; zeros, which pad at the front, match everything.
      output_ids: [B, S], tokens.
      decode_step: The last step of the text.
    """
    steps = jnp.full((output_ids.shape[0], 1), decode_step)
    found = end_with_any_sequence_any_position(stop_sequences[:, jnp.newaxis], output_ids, steps)
    return found[:, 0, 0]


def end_with_any_sequence_any_position(
    stop_sequence: Int[Array, "B n L"],
    output_ids: Int[Array, "B S"],
    decode_step: Int[Array, "B m"],
) -> Bool[Array, "B m n"]:
    """Whether the text up to each of some steps ends with each of the stop sequences of its row.

    Args:
      stop_sequence: [B, n, L]; zeros, which pad at the front, match everything.
      output_ids: [B, S], tokens.
      decode_step: [B, m], the last steps of the texts.
    """
    batch, num_sequences, width = stop_sequence.shape
    num_steps = decode_step.shape[1]
    source = decode_step[..., jnp.newaxis] + jnp.arange(1 - width, 1).reshape(1, 1, width)
    flat = jnp.clip(source.reshape(batch, -1), 0, output_ids.shape[1] - 1)
    ends = jnp.take_along_axis(output_ids, flat, axis=1).reshape(source.shape)
    ends = jnp.where(source < 0, -1, ends)  # [B, m, L], no token before the text
    shape = (batch, num_steps, num_sequences, width)
    wanted = jnp.broadcast_to(stop_sequence[:, jnp.newaxis], shape)
    found = jnp.broadcast_to(ends[:, :, jnp.newaxis], shape)
    return jnp.all((wanted == 0) | (wanted == found), axis=-1)


def find_first_new_stop_seq_match(
    first_new_decode_idx: Int[Array, " B"],
    num_new_tokens: int,
    stop_sequences: Int[Array, "B n L"],
    sequences: Int[Array, "B S"],
) -> Int[Array, " B"]:
    """The first of the new tokens that ends any of the stop sequences of its row.

    Args:
      first_new_decode_idx: [B], position of the first new token.
      num_new_tokens: How many there are.
      stop_sequences: [B, n, L], as in `end_with_any_sequence_any_position`.
      sequences: [B, S], tokens.

    Returns:
      [B], counted from the first new token; `num_new_tokens` if there is none.
    """
    steps = first_new_decode_idx[:, jnp.newaxis] + jnp.arange(num_new_tokens)[jnp.newaxis]
    ends = jnp.any(end_with_any_sequence_any_position(stop_sequences, sequences, steps), axis=-1)
    return jnp.where(jnp.any(ends, axis=1), jnp.argmax(ends, axis=1), num_new_tokens)

"""Given suffixes, appended to generated texts, to be scored."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis.decoding.state import shift_rows


def concat_suffix_and_left_align(
    decoded_tensors: Shaped[Array, "N S"],
    suffix_tensors: Shaped[Array, "..."],
    decode_end_indices: Int[Array, " N"],
    prefix_lengths: Int[Array, " N"],
    max_prefix_len: int,
    num_samples: int,
    num_suffix: int,
    pad_value: float | int,
) -> Shaped[Array, "..."]:
    """Appends each suffix to each text, and drops what is before the prefixes.

    Shapes: B rows, n samples of each, N = B * n, m suffixes of L steps.

    Args:
      decoded_tensors: [N, S], ids or scores, prefixes aligned to the right.
      suffix_tensors: [B, m, L], the same for all samples, or [N * m, L] for each.
      decode_end_indices: [N], where the suffix goes: behind the last step of the text.
      prefix_lengths: [N].
      max_prefix_len: P, width of the prefixes.
      num_samples: n.
      num_suffix: m.
      pad_value: What stands behind the suffix.

    Returns:
      [B, m, n, S + L].

    Raises:
      ValueError: if the shapes do not go together.
    """
    num_rows, seq_len = decoded_tensors.shape
    batch, length = num_rows // num_samples, suffix_tensors.shape[-1]
    by_row = (batch, num_suffix, length)
    if suffix_tensors.shape == by_row:
        suffixes = jnp.broadcast_to(
            suffix_tensors[:, jnp.newaxis], (batch, num_samples, *by_row[1:])
        )
    elif suffix_tensors.shape == (num_rows * num_suffix, length):
        suffixes = suffix_tensors
    else:
        raise ValueError(
            f"concat_suffix_and_left_align: suffix_tensors has shape {suffix_tensors.shape}, "
            f"expected {by_row}, or {(num_rows * num_suffix, length)} for each sample."
        )
    suffixes = suffixes.reshape(num_rows * num_suffix, length)

    def repeated(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        return jnp.repeat(x, num_suffix, axis=0)

    room = ((0, 0), (0, length))
    texts = jnp.pad(repeated(decoded_tensors), room, constant_values=pad_value)
    ends = repeated(decode_end_indices)
    place = jnp.arange(seq_len + length)[jnp.newaxis] - ends[:, jnp.newaxis]  # in the suffix
    wide = jnp.take_along_axis(suffixes, jnp.clip(place, 0, length - 1), axis=1)
    pad = jnp.asarray(pad_value, texts.dtype)
    behind = jnp.where(place < length, wide.astype(texts.dtype), pad)
    joined = jnp.where(place < 0, texts, behind)
    aligned = shift_rows(joined, max_prefix_len - repeated(prefix_lengths), pad_value=pad_value)
    return aligned.reshape(batch, num_samples, num_suffix, -1).swapaxes(1, 2)

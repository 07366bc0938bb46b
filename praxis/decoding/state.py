"""Changes of the arrays that decoding carries: padding, slicing, repeating, aligning."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Shaped

from praxis import base_layer

StateFn = base_layer.DecodeStateTransformFn


def pad_state_fn(state_padding_size: int) -> StateFn:
    """Makes a function that adds zeros at the end of time: `fn(x, batch_dim, time_dim)`."""

    def fn(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
        del batch_dim
        if time_dim < 0:
            return x
        widths = [(0, 0)] * x.ndim
        widths[time_dim] = (0, state_padding_size)
        return jnp.pad(x, widths)

    return fn


def slice_state_fn(slice_start: int, slice_limit: int) -> StateFn:
    """Makes a function that keeps time steps; negative numbers count from the end."""

    def fn(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
        del batch_dim
        if time_dim < 0:
            return x
        start, limit, _ = slice(slice_start, slice_limit).indices(x.shape[time_dim])
        return lax.slice_in_dim(x, start, max(start, limit), axis=time_dim)

    return fn


def batch_broadcast_state_fn(multiplier: int) -> StateFn:
    """Makes a function that repeats each row, so that its copies are neighbours."""

    def fn(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
        del time_dim
        return x if batch_dim < 0 else jnp.repeat(x, multiplier, axis=batch_dim)

    return fn


def shift_rows(
    x: Shaped[Array, "..."],
    offsets: Int[Array, " B"],
    *,
    batch_dim: int = 0,
    time_dim: int = 1,
    pad_value: float | int = 0,
) -> Shaped[Array, "..."]:
    """Moves each row by its own number of steps to the left, or to the right if negative.

    Args:
      x: Any array with a batch and a time axis.
      offsets: [B], steps.
      batch_dim: The batch axis.
      time_dim: The time axis.
      pad_value: What comes in at the ends.
    """
    length = x.shape[time_dim]
    source = jnp.arange(length)[jnp.newaxis] + offsets[:, jnp.newaxis]  # [B, S]
    shape = [1] * x.ndim
    shape[batch_dim], shape[time_dim] = source.shape
    source = (source if batch_dim < time_dim else source.T).reshape(shape)
    inside = (source >= 0) & (source < length)
    moved = jnp.take_along_axis(x, jnp.clip(source, 0, length - 1), axis=time_dim)
    return jnp.where(inside, moved, jnp.asarray(pad_value, x.dtype))


def right_align_tensors(
    x: Shaped[Array, "B ..."], lengths: Int[Array, " B"], align_dim: int = 1
) -> Shaped[Array, "B ..."]:
    """Moves the first `lengths` entries of each row to its end, with zeros before.

    Args:
      x: [B, ..., S, ...].
      lengths: [B].
      align_dim: The axis S, not the first.

    Raises:
      ValueError: if there is no such axis.
    """
    if not 0 < align_dim < x.ndim:
        raise ValueError(
            f"right_align_tensors: align_dim is {align_dim}, but x has shape {x.shape}: expected "
            f"1 to {x.ndim - 1}."
        )
    return shift_rows(x, lengths - x.shape[align_dim], time_dim=align_dim)


def right_align_state_fn(seq_lengths: Int[Array, " B"]) -> StateFn:
    """Makes a function that moves the first `seq_lengths` [B] steps of each row to its end."""

    def fn(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
        if batch_dim < 0 or time_dim < 0:
            return x
        offsets = seq_lengths - x.shape[time_dim]
        return shift_rows(x, offsets, batch_dim=batch_dim, time_dim=time_dim)

    return fn


def left_align_tensor(
    x: Shaped[Array, "B S ..."],
    prefix_lengths: Int[Array, " B"],
    max_prefix_len: int,
    pad_value: float | int = 0.0,
) -> Shaped[Array, "B S ..."]:
    """Drops what is before prefixes that are aligned to the right, and pads at the end.

    Args:
      x: [B, S, ...], of which the first `max_prefix_len` steps hold the prefixes.
      prefix_lengths: [B].
      max_prefix_len: At least each of `prefix_lengths`.
      pad_value: What comes in at the end.
    """
    return shift_rows(x, max_prefix_len - prefix_lengths, pad_value=pad_value)


def left_align_kv_cache(
    x: Shaped[Array, "B S ..."],
    prefix_lengths: Int[Array, " B"],
    max_prefix_len: int,
    pad_value: float | int = 0.0,
    batch_size: int = 1,
) -> Shaped[Array, "B S ..."]:
    """As `left_align_tensor`, under its old name; `batch_size` is not read."""
    del batch_size
    return left_align_tensor(x, prefix_lengths, max_prefix_len, pad_value)

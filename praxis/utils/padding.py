"""Sequence masks, paddings and masked logits. In paddings 1 marks a padded place."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

AnyArray = Array | np.ndarray

# Share of the dtype's largest number: two such numbers still add up without overflow to -inf
# becoming NaN in a softmax, and half of it separates masked from kept.
_LARGE_NEGATIVE_SHARE = -0.7


def sequence_mask(
    lengths: Int[ArrayLike, "..."] | Sequence,
    maxlen: int | np.integer,
    dtype: DTypeLike = jnp.bool,
) -> Shaped[Array, "... T"]:
    """1 (True) on the first `lengths` of `maxlen` places.

    Args:
      lengths: [...], integer.
      maxlen: T.
      dtype: Of the result.

    Returns:
      [..., T].
    """
    lengths = jnp.asarray(lengths)
    positions = jnp.arange(maxlen)
    shape = (*lengths.shape, positions.size)
    lengths = jnp.broadcast_to(jnp.expand_dims(lengths, -1), shape)
    return (jnp.broadcast_to(positions, shape) < lengths).astype(dtype)


def sequence_paddings(
    lengths: Int[ArrayLike, "..."] | Sequence,
    maxlen: int | np.integer,
    dtype: DTypeLike = jnp.float32,
) -> Shaped[Array, "... T"]:
    """1 on the places after the first `lengths`: the complement of `sequence_mask`."""
    return (~sequence_mask(lengths, maxlen)).astype(dtype)


def get_large_negative_number(dtype: DTypeLike) -> Shaped[Array, ""]:
    """-0.7 times the largest number of a dtype, as a scalar array of it.

    Raises:
      ValueError: if the dtype is neither floating nor integer.
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        largest = jnp.finfo(dtype).max
    elif jnp.issubdtype(dtype, jnp.integer):
        largest = jnp.iinfo(dtype).max
    else:
        raise ValueError(
            f"get_large_negative_number takes a floating or integer dtype, got {dtype.name}."
        )
    return jnp.asarray(_LARGE_NEGATIVE_SHARE * float(largest), dtype=dtype)


def apply_mask_to_logits(
    logits: Float[AnyArray, "..."], mask: Float[AnyArray, "..."] | Bool[AnyArray, "..."]
) -> Float[Array, "..."]:
    """Replaces masked logits by a large negative number.

    Args:
      logits: [...], floating.
      mask: Broadcasts against the logits. Floating: 0 keeps, a large negative number of its own
        dtype masks. Boolean: True keeps.

    Returns:
      The logits, with the large negative number of their dtype where masked.

    Raises:
      TypeError: if the mask is neither boolean nor floating.
    """
    logits, mask = jnp.asarray(logits), jnp.asarray(mask)
    if mask.dtype == jnp.bool:
        keep = mask
    elif jnp.issubdtype(mask.dtype, jnp.floating):
        keep = mask >= get_large_negative_number(mask.dtype) * jnp.asarray(0.5, mask.dtype)
    else:
        raise TypeError(
            f"apply_mask_to_logits: the mask has dtype {mask.dtype}, expected floating (0 keeps, "
            "large negative masks) or boolean (True keeps)."
        )
    return jnp.where(keep, logits, get_large_negative_number(logits.dtype))


def _align(padding: Array, inputs: Array, axis: int) -> Array:
    """Appends axes of size 1, so that the axes of both correspond from `axis` on, left to right."""
    if not -inputs.ndim <= axis < inputs.ndim or padding.ndim > inputs.ndim:
        raise ValueError(
            f"apply_padding: padding of shape {padding.shape} cannot be aligned with inputs of "
            f"shape {inputs.shape} at axis {axis}."
        )
    return padding.reshape(padding.shape + (1,) * (inputs.ndim - padding.ndim))


def _check_broadcast(padding: Array, inputs: Array) -> None:
    try:
        np.broadcast_shapes(padding.shape, inputs.shape)
    except ValueError as error:
        raise ValueError(
            f"apply_padding: padding of shape {padding.shape} does not broadcast against inputs of "
            f"shape {inputs.shape}. For paddings [B, T] of inputs [B, T, D] pass axis=0."
        ) from error


def apply_padding(
    inputs: Shaped[AnyArray, "..."],
    padding: Shaped[AnyArray, "..."],
    pad_value: Num[ArrayLike, "..."] | None = None,
    use_select: bool = True,
    axis: int | None = None,
) -> Shaped[Array, "..."]:
    """Replaces padded places.

    Args:
      inputs: [...].
      padding: 1 (positive) marks padding. Broadcasts against the inputs.
      pad_value: What to write, 0 by default.
      use_select: Select (True) also removes NaN in padded places; arithmetic (False) multiplies
        by `1 - padding` and keeps them.
      axis: The axes of padding from this one on are those of the inputs, and axes of size 1 are
        appended: padding [B, T] with axis 0 acts on inputs [B, T, D].

    Returns:
      The inputs with padded places replaced, in their dtype.

    Raises:
      ValueError: if the padding cannot be aligned with the inputs at `axis`, or broadcast.
    """
    inputs, padding = jnp.asarray(inputs), jnp.asarray(padding)
    if axis is not None:
        padding = _align(padding, inputs, axis)
    _check_broadcast(padding, inputs)
    if use_select:
        fill = jnp.asarray(0 if pad_value is None else pad_value, inputs.dtype)
        return jnp.where(padding > 0, fill, inputs)
    padding = padding.astype(inputs.dtype)
    padded = inputs * (1 - padding)
    return padded if pad_value is None else padded + jnp.asarray(pad_value, inputs.dtype) * padding


def flip_sequence(
    inputs: Shaped[AnyArray, "B T *D"], lengths: Int[AnyArray, " B"]
) -> Shaped[Array, "B T *D"]:
    """Reverses the first `lengths` places of each row; the others hold the rest, reversed."""
    inputs, lengths = jnp.asarray(inputs), jnp.asarray(lengths)

    def flip_row(row: Array, length: Array) -> Array:
        return jnp.flip(jnp.roll(row, row.shape[0] - length, axis=0), axis=0)

    return jax.vmap(flip_row)(inputs, lengths)


def concat_sequences_with_padding(
    input0: Shaped[AnyArray, "..."],
    paddings0: Shaped[AnyArray, "..."],
    input1: Shaped[AnyArray, "..."],
    paddings1: Shaped[AnyArray, "..."],
) -> tuple[Shaped[Array, "..."], Shaped[Array, "..."]]:
    """Puts the valid part of one sequence directly after that of another.

    Args:
      input0: [B, T0, ...].
      paddings0: [B, T0], all padding at the end.
      input1: [B, T1, ...].
      paddings1: [B, T1], all padding at the end.

    Returns:
      The joined sequences [B, T0 + T1, ...] and their paddings [B, T0 + T1].

    Raises:
      ValueError: if the batch sizes or the trailing dims differ, or if the shape of paddings is
        not that of their sequence.
    """
    input0, paddings0 = jnp.asarray(input0), jnp.asarray(paddings0)
    input1, paddings1 = jnp.asarray(input1), jnp.asarray(paddings1)
    shapes = [x.shape for x in (input0, paddings0, input1, paddings1)]
    if input0.shape[:1] != input1.shape[:1] or input0.shape[2:] != input1.shape[2:]:
        raise ValueError(
            "concat_sequences_with_padding: the sequences differ in more than their length: "
            f"input0 has shape {shapes[0]}, input1 {shapes[2]}."
        )
    if shapes[0][:2] != shapes[1] or shapes[2][:2] != shapes[3]:
        raise ValueError(
            "concat_sequences_with_padding: paddings must be [B, T] of their sequence: input0 has "
            f"shape {shapes[0]} and paddings0 {shapes[1]}, input1 {shapes[2]} and paddings1 "
            f"{shapes[3]}."
        )
    # In float32: bfloat16 counts exactly only up to 256.
    lengths = jnp.sum(1 - paddings0.astype(jnp.float32), axis=1).astype(jnp.int32)

    def join(row0: Array, row1: Array, length: Array) -> Array:
        # The padded places of row0 come last, after all of row1.
        places = jnp.arange(row0.shape[0] + row1.shape[0])
        after_row1 = jnp.where(
            places < length + row1.shape[0], places - length + row0.shape[0], places - row1.shape[0]
        )
        sources = jnp.where(places < length, places, after_row1)
        return jnp.concatenate([row0, row1.astype(row0.dtype)])[sources]

    return (
        jax.vmap(join)(input0, input1, lengths),
        jax.vmap(join)(paddings0, paddings1, lengths),
    )


def append_eos(
    x: Int[AnyArray, "B T"],
    paddings: Shaped[AnyArray, "B T"],
    eos_id: int,
    extend_if_overflow: bool = True,
    *,
    extend: bool | None = None,
) -> tuple[Int[Array, "B T1"], Shaped[Array, "B T1"]]:
    """Ends each row with one end-of-sequence id, unless its last valid id is one already.

    Args:
      x: [B, T], ids.
      paddings: [B, T], 1 marks padding, all at the end.
      eos_id: The id to append; padded places hold it too.
      extend_if_overflow: Return T + 1 columns where a full row needs one more; this depends on
        the values, so it cannot be traced. Without it a full row stays as it is.
      extend: True always returns T + 1 columns, False always T, whatever the values, so that the
        function can be traced. None decides by `extend_if_overflow`.

    Returns:
      Ids and paddings, both [B, T] or [B, T + 1].

    Raises:
      ValueError: if the width would depend on traced values.
    """
    x, paddings = jnp.asarray(x), jnp.asarray(paddings)
    batch, maxlen = x.shape
    lengths = jnp.sum(paddings == 0, axis=1, dtype=jnp.int32)
    last = jnp.take_along_axis(x, jnp.maximum(lengths - 1, 0)[:, jnp.newaxis], axis=1)[:, 0]
    ends_with_eos = (lengths > 0) & (last == eos_id)
    new_lengths = jnp.where(ends_with_eos, lengths, lengths + 1)
    if extend is None:
        extend = extend_if_overflow and _some_row_overflows(new_lengths, maxlen)
    if extend:
        x = jnp.concatenate([x, jnp.full([batch, 1], eos_id, x.dtype)], axis=1)
    valid = sequence_mask(lengths, x.shape[1])
    return (
        jnp.where(valid, x, jnp.asarray(eos_id, x.dtype)),
        sequence_paddings(new_lengths, x.shape[1], paddings.dtype),
    )


def _some_row_overflows(lengths: Array, maxlen: int) -> bool:
    try:
        return bool(jnp.any(lengths > maxlen))
    except jax.errors.TracerBoolConversionError:
        raise ValueError(
            "append_eos: with extend_if_overflow the width of the result depends on the values, "
            "which are being traced. Pass extend=True for T + 1 columns or extend=False for T."
        ) from None


def pad_or_trim_to(
    x: Shaped[AnyArray, "..."] | None,
    shape: Sequence[int],
    pad_val: Num[ArrayLike, ""] = 0,
) -> Shaped[Array, "..."] | None:
    """Pads on the right and cuts each axis to a shape; None is returned as it is.

    Raises:
      ValueError: if the ranks differ.
    """
    if x is None:
        return None
    if x.ndim != len(shape):
        raise ValueError(
            f"pad_or_trim_to: x has shape {x.shape}, which has rank {x.ndim}, but the target "
            f"shape {tuple(shape)} has rank {len(shape)}."
        )
    cut = x[tuple(slice(0, size) for size in shape)]
    widths = [(0, size - have) for size, have in zip(shape, cut.shape, strict=True)]
    return jnp.pad(cut, widths, constant_values=pad_val)


def l2_normalize(
    x: Float[AnyArray, "..."], axis: int | Sequence[int] = -1, epsilon: float = 1e-12
) -> Float[Array, "..."]:
    """`x / sqrt(sum(x^2) + epsilon)` over one or several axes."""
    x = jnp.asarray(x)
    axes = axis if isinstance(axis, int) else tuple(axis)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=axes, keepdims=True) + epsilon)

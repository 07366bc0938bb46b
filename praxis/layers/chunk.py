"""Cutting an axis into chunks of equal length, and joining them again."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def chunk(x: Shaped[Array, "..."], *, chunk_size: int, axis: int = 1) -> Shaped[Array, "N ..."]:
    """Cuts an axis into chunks; zeros fill the last one up.

    Args:
      x: [..., L, ...].
      chunk_size: C, at least 1.
      axis: The axis of L.

    Returns:
      [N, ..., C, ...], the N = ceil(L / C) chunks in front: what a loop takes one by one.

    Raises:
      ValueError: if C is below 1, or there is no such axis.
    """
    axis = _check_axis("chunk: x", x, axis, x.ndim)
    if chunk_size < 1:
        raise ValueError(f"chunk: chunk_size is {chunk_size}, expected at least 1.")
    missing = -x.shape[axis] % chunk_size
    x = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
    chunks = x.reshape(*x.shape[:axis], -1, chunk_size, *x.shape[axis + 1 :])
    return jnp.moveaxis(chunks, axis, 0)


def unchunk(
    chunk_x: Shaped[Array, "N ..."], axis: int = 1, seqlen: int | None = None
) -> Shaped[Array, "..."]:
    """Undoes `chunk`.

    Args:
      chunk_x: [N, ..., C, ...].
      axis: The axis of L in the result.
      seqlen: L; what is after it is dropped. None keeps all N C entries.

    Returns:
      [..., L, ...].

    Raises:
      ValueError: if there is no such axis, or there are fewer than L entries.
    """
    axis = _check_axis("unchunk: chunk_x", chunk_x, axis, chunk_x.ndim - 1)
    chunks = jnp.moveaxis(chunk_x, 0, axis)
    x = chunks.reshape(*chunks.shape[:axis], -1, *chunks.shape[axis + 2 :])
    if seqlen is None:
        return x
    if seqlen > x.shape[axis]:
        raise ValueError(
            f"unchunk: chunk_x has shape {chunk_x.shape}, that is {x.shape[axis]} entries, but "
            f"seqlen is {seqlen}. Was it made by chunk along the same axis = {axis}?"
        )
    return x[(slice(None),) * axis + (slice(seqlen),)]


def _check_axis(name: str, x: Shaped[Array, "..."], axis: int, rank: int) -> int:
    """The axis, counted from the front."""
    if not -rank <= axis < rank:
        raise ValueError(f"{name} has shape {x.shape}, which has no axis {axis} to cut or join.")
    return axis % rank

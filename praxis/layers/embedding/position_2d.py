"""Sinusoidal position embeddings of a grid, for images."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers.checks import check_sizes

MAX_TIMESCALE = 10_000.0
# Order of the axes in the list of positions, by value of the field `pos_transform`.
AXIS_ORDERS = {"hwd->(hw)d": (0, 1, 2), "hwd->(wh)d": (1, 0, 2)}


def grid_sinusoids(height: int, width: int, embedding_dims: int) -> Float[Array, "H W D"]:
    """Half of the columns tell the row, half the column, each as sines, then cosines.

    Coordinates are centred, `-height / 2, 1 - height / 2, ...`, and frequency i of D // 4 is
    `10000^(-i / (D / 4))`. Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision
    Transformers", 2021, arXiv:2104.02057, use the same form.

    Args:
      height: H, rows.
      width: W, columns.
      embedding_dims: D, a multiple of 4.

    Returns:
      [H, W, D], float32.
    """
    num_frequencies = embedding_dims // 4
    exponents = jnp.arange(num_frequencies, dtype=jnp.float32) / num_frequencies
    frequencies = MAX_TIMESCALE**-exponents  # [D // 4]

    def axis_signal(size: int) -> Float[Array, "S D"]:
        coordinates = jnp.arange(size, dtype=jnp.float32) - size / 2
        angles = jnp.outer(coordinates, frequencies)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    grid = (height, width, embedding_dims // 2)
    rows = jnp.broadcast_to(axis_signal(height)[:, jnp.newaxis], grid)
    columns = jnp.broadcast_to(axis_signal(width)[jnp.newaxis], grid)
    return jnp.concatenate([rows, columns], axis=-1)


class PositionalEmbedding2D(base_layer.BaseLayer):
    """Vectors of sines and cosines for the patches of an image; no variables.

    Shapes: D is `embedding_dims`, n is `num_prepend_cls_tokens + h * w + num_append_cls_tokens`.

    Attributes:
      h: Rows of the grid, at least 1. Required.
      w: Columns of the grid, at least 1. Required.
      embedding_dims: D, a positive multiple of 4. Required.
      num_prepend_cls_tokens: Rows of zeros in front, for class tokens.
      num_append_cls_tokens: Rows of zeros behind, for class tokens.
      pos_transform: Order of the positions, one letter an axis: 'hwd->(hw)d' goes row by row,
        'hwd->(wh)d' column by column.

    Raises:
      ValueError: during setup, if a size is missing, D is no multiple of 4, a number of class
        tokens is negative or `pos_transform` is unknown; in `__call__`, if `seq_length` is not n.

    Example:
      >>> from praxis import pax_fiddle
      >>> config = pax_fiddle.Config(PositionalEmbedding2D, h=2, w=3, embedding_dims=8)
      >>> pax_fiddle.build(config).apply({}, seq_length=6).shape
      (1, 6, 8)
    """

    h: int = 0
    w: int = 0
    num_prepend_cls_tokens: int = 0
    num_append_cls_tokens: int = 0
    embedding_dims: int = 0
    pos_transform: str = "hwd->(hw)d"

    def setup(self) -> None:
        check_sizes(self, "h", "w", "embedding_dims")
        if self.embedding_dims % 4:
            raise ValueError(
                f"{self.path_text}: embedding_dims is {self.embedding_dims}, expected a multiple "
                "of 4: sines and cosines of each of two axes."
            )
        for field in ("num_prepend_cls_tokens", "num_append_cls_tokens"):
            if (number := getattr(self, field)) < 0:
                raise ValueError(f"{self.path_text}: {field} is {number}, expected at least 0.")
        if self.pos_transform not in AXIS_ORDERS:
            raise ValueError(
                f"{self.path_text}: pos_transform is {self.pos_transform!r}, expected one of "
                f"{list(AXIS_ORDERS)}."
            )

    def __call__(
        self, seq_length: int | None = None, position: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "1 T D"]:
        """Computes the vectors of the whole grid.

        Args:
          seq_length: n, or None not to check it.
          position: Not read: the positions are those of the grid.

        Returns:
          [1, n, D], in `fprop_dtype`.
        """
        del position
        cls_tokens = (self.num_prepend_cls_tokens, self.num_append_cls_tokens)
        num_positions = self.h * self.w + sum(cls_tokens)
        if seq_length is not None and seq_length != num_positions:
            raise ValueError(
                f"{self.path_text}: seq_length is {seq_length}, expected {num_positions}: "
                f"h * w = {self.h} * {self.w}, and {sum(cls_tokens)} class tokens."
            )
        grid = grid_sinusoids(self.h, self.w, self.embedding_dims)
        grid = jnp.transpose(grid, AXIS_ORDERS[self.pos_transform])
        signal = grid.reshape(-1, self.embedding_dims)  # [h * w, D]
        signal = jnp.pad(signal, (cls_tokens, (0, 0)))
        return signal[jnp.newaxis].astype(self.fprop_dtype)

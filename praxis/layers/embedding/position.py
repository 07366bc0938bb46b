"""Sinusoidal position embeddings."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers.checks import check_sizes


def sinusoids(
    position: Shaped[Array, "*B"],
    *,
    embedding_dims: int,
    min_timescale: int | float,
    max_timescale: int | float,
) -> Float[Array, "*B D"]:
    """Sines, then cosines, of the position at geometrically spaced frequencies.

    With n = D // 2, frequency i is `min_timescale * (max / min)^(-i / (n - 1))`. An odd D ends with
    a column of zeros. Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, 3.5.

    Args:
      position: [...], tokens.
      embedding_dims: D.
      min_timescale: Factor of all frequencies. (Not a divisor, unlike in other implementations;
        existing models depend on it.)
      max_timescale: The ratio `max_timescale / min_timescale` is that of the highest to the lowest
        frequency.

    Returns:
      [..., D], float32.
    """
    num_frequencies = embedding_dims // 2
    step = math.log(max_timescale / min_timescale) / max(num_frequencies - 1, 1)
    exponents = -step * jnp.arange(num_frequencies, dtype=jnp.float32)
    frequencies = min_timescale * jnp.exp(exponents)  # [D // 2]
    angles = _outer(position.astype(jnp.float32), frequencies)  # [..., D // 2]
    signal = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    padding = [(0, 0)] * position.ndim + [(0, embedding_dims % 2)]
    return jnp.pad(signal, padding)


def _outer(x: Float[Array, "*B"], y: Float[Array, " D"]) -> Float[Array, "*B D"]:
    """Each number of `x` times the vector `y`."""
    return x[..., jnp.newaxis] * jnp.expand_dims(y, tuple(range(x.ndim)))


class PositionalEmbedding(base_layer.BaseLayer):
    """Vectors of sines and cosines of the position; no variables.

    Shapes: D is `embedding_dims`.

    Attributes:
      min_timescale: Factor of all frequencies, see `sinusoids`.
      max_timescale: Longest period over 2 pi, tokens.
      embedding_dims: D, at least 1. Required.

    Raises:
      ValueError: during setup, if `embedding_dims` is missing or a timescale is not
        positive; in `__call__`, if there is neither a
        length nor positions.

    Example:
      >>> from praxis import pax_fiddle
      >>> layer = pax_fiddle.build(pax_fiddle.Config(PositionalEmbedding, embedding_dims=8))
      >>> layer.apply({}, seq_length=5).shape
      (1, 5, 8)
    """

    min_timescale: int = 1
    max_timescale: int = 10_000
    embedding_dims: int = 0

    def setup(self) -> None:
        check_sizes(self, "embedding_dims")
        for field in ("min_timescale", "max_timescale"):
            if (timescale := getattr(self, field)) <= 0:
                raise ValueError(
                    f"{self.path_text}: {field} is {timescale}, expected more than 0 tokens."
                )

    def __call__(
        self, seq_length: int | None = None, position: Shaped[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Computes the vectors.

        Args:
          seq_length: T: positions 0 to T - 1. Not read where `position` is given.
          position: [B, T], tokens.

        Returns:
          [B, T, D], or [1, T, D] without `position`; in `fprop_dtype`.
        """
        if position is None:
            position = positions_of_length(self, seq_length)
        signal = sinusoids(
            position,
            embedding_dims=self.embedding_dims,
            min_timescale=self.min_timescale,
            max_timescale=self.max_timescale,
        )
        return signal.astype(self.fprop_dtype)


def positions_of_length(
    layer: base_layer.BaseLayer, seq_length: int | None
) -> Shaped[Array, "1 T"]:
    """Positions 0 to `seq_length` - 1, for one example.

    Raises:
      ValueError: if `seq_length` is None.
    """
    if seq_length is None:
        raise ValueError(
            f"{layer.path_text}: neither seq_length nor position is given. Pass seq_length for "
            "positions 0, 1, ..., or position of shape [B, T]."
        )
    return jnp.arange(seq_length, dtype=jnp.int32)[jnp.newaxis]

"""Rotary position embeddings."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis.layers.embedding.position import PositionalEmbedding


def rotate_by_position(
    inputs: Float[Array, "*B H"],
    position: Shaped[Array, "*P"],
    *,
    min_timescale: int | float,
    max_timescale: int | float,
) -> Float[Array, "*B H"]:
    """Rotates pairs of features by angles proportional to the position.

    Feature i is paired with i + H / 2, and turns by `position / timescale_i` with
    `timescale_i = min * (max / min)^(2 i / H)`. Su et al., "RoFormer", 2021, arXiv:2104.09864,
    section 3.4.2 (which pairs neighbours).

    Sines and cosines are computed for the given positions only, in float32, so there is no table
    and no longest length.

    Args:
      inputs: [..., H], H even.
      position: Of the rank of `inputs` without H; axes of length 1 are broadcast. Tokens.
      min_timescale: Period of the first pair over 2 pi, tokens.
      max_timescale: Period that a pair after the last would have, over 2 pi, tokens.

    Returns:
      [..., H], in float32, or wider where the inputs are.
    """
    dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    half = inputs.shape[-1] // 2
    exponents = jnp.arange(half, dtype=dtype) / half
    timescales = min_timescale * (max_timescale / min_timescale) ** exponents  # [H / 2]
    timescales = jnp.expand_dims(timescales, tuple(range(position.ndim)))
    angles = position.astype(dtype)[..., jnp.newaxis] / timescales  # [..., H / 2]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(inputs.astype(dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class RotaryPositionalEmbedding(PositionalEmbedding):
    """Rotates queries and keys, so that their products depend on relative positions only.

    See `rotate_by_position` for the formula. Shapes: H is `embedding_dims`.

    Attributes:
      min_timescale: Period of the first pair of features over 2 pi, tokens.
      max_timescale: Period that a pair after the last would have, over 2 pi, tokens.
      embedding_dims: H, even: the width of a head. Required.
      cast_as_fprop_dtype: Whether outputs are cast to `fprop_dtype`; else they are float32, or
        wider where the inputs are.

    Raises:
      ValueError: during setup, if `embedding_dims` is missing or odd; in a call, if the inputs or
        the positions have the wrong shape.

    Example:
      >>> from praxis import pax_fiddle
      >>> layer = pax_fiddle.build(pax_fiddle.Config(RotaryPositionalEmbedding, embedding_dims=8))
      >>> queries = jnp.ones([2, 5, 3, 8])  # [B, T, N, H]
      >>> layer.apply({}, queries).shape
      (2, 5, 3, 8)
    """

    cast_as_fprop_dtype: bool = True

    def setup(self) -> None:
        super().setup()
        if self.embedding_dims % 2:
            raise ValueError(
                f"{self.path_text}: embedding_dims is {self.embedding_dims}, expected an even "
                "number: features are rotated in pairs."
            )

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # public signature
        self, inputs: Float[Array, "..."], position: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "..."]:
        """Rotates a sequence.

        Args:
          inputs: [B, T, N, H] or [B, T, H].
          position: [B, T], tokens. None: 0 to T - 1.

        Returns:
          Of the shape of the inputs.
        """
        self._check_inputs(inputs, ranks=(3, 4), expected="[B, T, N, H] or [B, T, H]")
        batch, target_len = inputs.shape[:2]
        if position is None:
            position = jnp.arange(target_len, dtype=jnp.int32)[jnp.newaxis]
        elif position.ndim != 2 or any(
            have not in (1, want)
            for have, want in zip(position.shape, (batch, target_len), strict=True)
        ):
            raise ValueError(
                f"{self.path_text}: position has shape {position.shape}, expected [B, T] = "
                f"{(batch, target_len)} for inputs of shape {inputs.shape}."
            )
        if inputs.ndim == 4:
            position = position[..., jnp.newaxis]  # [B, T, 1]
        return self._rotate(inputs, position)

    def extend_step(
        self,
        inputs: Float[Array, "..."],
        position: Shaped[Array, "..."] | int | None = None,
    ) -> Float[Array, "..."]:
        """Rotates the tokens of one decoding step.

        Args:
          inputs: [B, N, H], one token for each example; or [B, P, N, H], P consecutive tokens; or
            [B, H], one token without heads. (A rank of 3 is always read as [B, N, H].)
          position: [] or [B], position of the last of the P tokens. Token p has
            `position - (P - 1 - p)`, but at least 0. None: P - 1, so that the first token has 0.

        Returns:
          Of the shape of the inputs.
        """
        self._check_inputs(inputs, ranks=(2, 3, 4), expected="[B, N, H], [B, P, N, H] or [B, H]")
        batch = inputs.shape[0]
        num_tokens = inputs.shape[1] if inputs.ndim == 4 else 1
        last = jnp.asarray(num_tokens - 1 if position is None else position)
        if last.ndim > 1 or (last.ndim == 1 and last.shape[0] not in (1, batch)):
            raise ValueError(
                f"{self.path_text}: position has shape {last.shape}, expected [] or [B] with "
                f"B = {batch} for inputs of shape {inputs.shape}."
            )
        last = last.reshape(-1, 1)  # [B, 1] or [1, 1]
        steps_back = jnp.arange(num_tokens - 1, -1, -1, dtype=last.dtype)
        tokens = jnp.maximum(last - steps_back[jnp.newaxis], 0)  # [B, P]
        if inputs.ndim == 4:
            return self._rotate(inputs, tokens[..., jnp.newaxis])
        return self._rotate(inputs, tokens[:, 0] if inputs.ndim == 2 else tokens)

    def _check_inputs(
        self, inputs: Float[Array, "..."], *, ranks: tuple[int, ...], expected: str
    ) -> None:
        """Refuses inputs of another rank or width."""
        if inputs.ndim not in ranks or inputs.shape[-1] != self.embedding_dims:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected {expected} with "
                f"H = embedding_dims = {self.embedding_dims}."
            )

    def _rotate(
        self, inputs: Float[Array, "..."], position: Shaped[Array, "..."]
    ) -> Float[Array, "..."]:
        outputs = rotate_by_position(
            inputs,
            position,
            min_timescale=self.min_timescale,
            max_timescale=self.max_timescale,
        )
        return outputs.astype(self.fprop_dtype) if self.cast_as_fprop_dtype else outputs

"""Finite scalar quantization: every dimension is rounded to a few levels."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from praxis import base_layer, py_utils
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.utils.broadcasting import expand_rank

BOUNDS = {"sine": jnp.sin, "tanh": jnp.tanh}


class ScalarQuantizer(base_layer.BaseLayer):
    """Rounds each dimension of a bounded vector to one of a few levels.

    Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023, arXiv:2309.15505. A
    dimension with w levels takes the values -(w - 1) / 2, ..., (w - 1) / 2 in steps of 1. Gradients
    pass the rounding unchanged. Shapes: D is `embedding_dim`.

    Attributes:
      embedding_dim: D.
      dim_widths: Levels of each dimension, D numbers of at least 2.
      bound_method: What bounds a dimension before it is scaled: "sine" or "tanh".
      eps: Share by which the range is smaller, so that nothing is rounded to a level outside of it.

    Raises:
      ValueError: during setup, if the fields do not go together; in `__call__`, if the last axis of
        the inputs is not D.
    """

    embedding_dim: int = 8
    dim_widths: Sequence[int] = (8, 8, 4, 4, 4, 4, 4, 4)
    bound_method: str = "sine"
    eps: float = 1e-3

    def setup(self) -> None:
        check_sizes(self, "embedding_dim")
        if len(self.dim_widths) != self.embedding_dim or min(self.dim_widths) < 2:
            raise ValueError(
                f"{self.path_text}: dim_widths is {tuple(self.dim_widths)}, expected embedding_dim "
                f"= {self.embedding_dim} numbers of at least 2."
            )
        num_codes = np.prod([int(width) for width in self.dim_widths], dtype=object)
        if num_codes > 2**31:
            raise ValueError(
                f"{self.path_text}: dim_widths = {tuple(self.dim_widths)} make {num_codes} codes, "
                "more than the 2**31 that an index can tell apart."
            )
        if self.bound_method not in BOUNDS:
            raise ValueError(
                f"{self.path_text}: bound_method is {self.bound_method!r}, expected one of "
                f"{tuple(BOUNDS)}."
            )

    def _widths(self) -> np.ndarray:
        return np.asarray(self.dim_widths, np.int32)

    def _place_values(self) -> np.ndarray:
        """What one level more of a dimension adds to the index; the first dimension counts most."""
        return np.append(np.cumprod(self._widths()[:0:-1])[::-1], 1).astype(np.int32)

    def _lowest(self) -> np.ndarray:
        return (self._widths() - 1) / 2

    def __call__(
        self, inputs: Float[Array, "*B D"]
    ) -> tuple[Float[Array, "*B D"], py_utils.NestedMap]:
        """Quantizes `inputs`.

        Args:
          inputs: [..., D].

        Returns:
          The levels [..., D], with the gradients of the inputs, and a NestedMap of
          - raw: [..., D], the bounded and scaled inputs that are rounded
          - quantized: [..., D], the levels
          - encoding_indices: [...], int32
          - quantizer_loss: [], float32, 0 since nothing is trained here
        """
        check_last_axis(self, inputs, "embedding_dim")
        inputs = self._cast_to_fprop_dtype(inputs)
        widths = self._widths()

        def vector(values: np.ndarray, dtype: DTypeLike = inputs.dtype) -> Array:
            return expand_rank(jnp.asarray(values, dtype), inputs.ndim)

        bounded = BOUNDS[self.bound_method](inputs) * vector(widths * (1 - self.eps) / 2)
        # With an even number of levels, 0 is the border between two.
        offset = vector(np.where(widths % 2, 0.0, 0.5))
        levels = jnp.round(bounded - offset) + offset
        quantized = bounded + lax.stop_gradient(levels - bounded)
        digits = jnp.round(levels + vector(self._lowest())).astype(jnp.int32)
        indices = jnp.sum(digits * vector(self._place_values(), jnp.int32), axis=-1)
        return quantized, py_utils.NestedMap(
            raw=bounded,
            quantized=quantized,
            encoding_indices=indices,
            quantizer_loss=jnp.zeros([], jnp.float32),
        )

    def decode_ids(self, ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """The levels [..., D] that indices [...] stand for."""
        places, widths, lowest = (
            expand_rank(jnp.asarray(values), ids.ndim + 1)
            for values in (
                self._place_values(),
                self._widths(),
                self._lowest().astype(np.float32),
            )
        )
        digits = ids[..., jnp.newaxis].astype(jnp.int32) // places % widths
        return self._cast_to_fprop_dtype(digits.astype(jnp.float32) - lowest)

"""Operations as layers, so that a config can put a quantized or sparse one in their place.

A layer that multiplies by a weight holds one of these as a child, made from a template field such
as `einsum_tpl`. The plain ones below own no variables; a replacement may own some, and they live
under the name of the child.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from praxis import base_layer


class EinsumOp(base_layer.BaseLayer):
    """`jnp.einsum` without casts.

    Example:
      >>> from praxis import pax_fiddle
      >>> einsum = pax_fiddle.build(pax_fiddle.Config(EinsumOp))
      >>> einsum.apply({}, "ab,bc->ac", jnp.ones([2, 3]), jnp.ones([3, 5])).shape
      (2, 5)
    """

    def __call__(self, equation: str, *args: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Contracts the operands.

        Args:
          equation: As for `jnp.einsum`.
          *args: The operands, as many as the equation names.
        """
        return jnp.einsum(equation, *args)


class EinsumGatedOp(base_layer.BaseLayer):
    """Two einsums of one equation with the same first operand, for a gated layer.

    Raises:
      ValueError: in `__call__`, unless there are three operands.
    """

    def __call__(
        self, equation: str, *args: Shaped[Array, "..."]
    ) -> tuple[Shaped[Array, "..."], Shaped[Array, "..."]]:
        """Contracts `inputs` with each of two weights.

        Args:
          equation: As for `jnp.einsum`, with two operands.
          *args: inputs, weight, weight of the gate.

        Returns:
          The results for the weight and for the weight of the gate.
        """
        if len(args) != 3:
            raise ValueError(
                f"{self.path_text}: got {len(args)} operands, expected 3: the inputs, the weight "
                "and the weight of the gate."
            )
        inputs, weight, gate_weight = args
        return jnp.einsum(equation, inputs, weight), jnp.einsum(equation, inputs, gate_weight)


class ArrayLookup(base_layer.BaseLayer):
    """Indexing: `x[idx]`."""

    def __call__(self, x: Shaped[Array, "..."], idx: Any) -> Array:
        """Picks rows, or whatever `idx` selects.

        Args:
          x: The array to read.
          idx: An integer array of row numbers, or any other index that arrays take.
        """
        return x[idx]

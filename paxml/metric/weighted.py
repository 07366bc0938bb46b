"""A weighted mean as an object, for models whose metrics merge themselves."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class WeightedScalarCluMetric:
    """A weighted mean over batches.

    It follows the protocol of CLU's metrics, `merge` and `compute`, without needing CLU.

    Attributes:
      weight: Sum of the weights.
      weighted_value: Sum of value times weight.

    Example:
      >>> one = WeightedScalarCluMetric.create(1.0, 1.0)
      >>> float(one.merge(WeightedScalarCluMetric.create(3.0, 3.0)).compute())
      2.5
    """

    weight: jax.typing.ArrayLike
    weighted_value: jax.typing.ArrayLike

    @classmethod
    def create(
        cls, value: jax.typing.ArrayLike, weight: jax.typing.ArrayLike
    ) -> "WeightedScalarCluMetric":
        """The metric of one batch."""
        return cls(weight=weight, weighted_value=jnp.multiply(value, weight))

    def merge(self, other: "WeightedScalarCluMetric") -> "WeightedScalarCluMetric":
        """The metric of both."""
        return type(self)(
            weight=jnp.add(self.weight, other.weight),
            weighted_value=jnp.add(self.weighted_value, other.weighted_value),
        )

    def compute(self) -> jax.Array:
        """The mean, NaN when all weights are zero."""
        return jnp.divide(self.weighted_value, self.weight)

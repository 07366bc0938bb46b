"""What every schedule is, and the one that does not move."""

import abc

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from praxis.config.parameterizable import FiddleBaseParameterizable


def as_step(step: ArrayLike) -> Num[Array, ""]:
    """The step as a signed scalar, so that subtracting a boundary never wraps around."""
    step = jnp.asarray(step)
    return step.astype(jnp.int32) if jnp.issubdtype(step.dtype, jnp.unsignedinteger) else step


def as_float(step: ArrayLike) -> Float[Array, ""]:
    """The step as a float32 scalar."""
    return jnp.asarray(step).astype(jnp.float32)


class BaseSchedule(FiddleBaseParameterizable, abc.ABC):
    """A value for every step, used as a multiplier of an optimizer's `learning_rate`.

    Steps count from 0: the first update uses `value_at(0)`.
    """

    @abc.abstractmethod
    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        """The value at a step.

        Args:
          step: scalar, the number of updates already made. May be traced.

        Returns:
          A float32 scalar.
        """


class Constant(BaseSchedule):
    """The same value at every step.

    Attributes:
      value: the value.
    """

    value: float = 1.0

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        return jnp.asarray(self.value, jnp.float32)

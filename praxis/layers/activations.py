"""Elementwise nonlinearities as layers without variables."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from praxis import base_layer


class BaseActivation(base_layer.BaseLayer):
    """Base of all activations: a layer that maps an array to one of the same shape.

    A subclass defines `__call__(inputs)`. Activations take any floating shape and keep the dtype.

    Example:
      >>> BaseActivation.get_subclass_by_name("squared_relu").__name__
      'SquaredReLU'
    """

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        raise NotImplementedError(
            f"{type(self).__name__} {self.name!r} does not define __call__; "
            "use a subclass such as activations.ReLU."
        )

    @classmethod
    def get_subclass_by_name(cls, name: str) -> "type[BaseActivation]":
        """Finds the direct subclass whose name matches, ignoring case and underscores in `name`.

        Args:
          name: e.g. "swish" or "cubed_relu".

        Raises:
          KeyError: if no direct subclass, or more than one, has this name.
        """
        wanted = name.replace("_", "").lower()
        subclasses = cls.__subclasses__()
        matches = [sub for sub in subclasses if sub.__name__.lower() == wanted]
        if len(matches) == 1:
            return matches[0]
        if matches:
            places = sorted(f"{sub.__module__}.{sub.__qualname__}" for sub in matches)
            raise KeyError(
                f"Activation name {name!r} is ambiguous: {len(matches)} direct subclasses of "
                f"{cls.__name__} match: {places}. Rename one of them, or use the class itself."
            )
        known = sorted(sub.__name__ for sub in subclasses)
        raise KeyError(
            f"Activation name {name!r} matches no direct subclass of {cls.__name__}; "
            f"expected one of {known}."
        )


class ReLU(BaseActivation):
    """max(x, 0)."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.relu(inputs)


class SineReLU(BaseActivation):
    """sin(max(x, 0))."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jnp.sin(jax.nn.relu(inputs))


class ReLU6(BaseActivation):
    """min(max(x, 0), 6)."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.relu6(inputs)


class SquaredReLU(BaseActivation):
    """max(x, 0)^2, of So et al., "Primer", 2021, arXiv:2109.08668."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jnp.square(jax.nn.relu(inputs))


class CubedReLU(BaseActivation):
    """max(x, 0)^3."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        positive = jax.nn.relu(inputs)
        return positive * positive * positive


class LeakyReLU(BaseActivation):
    """x where x >= 0, `negative_slope * x` elsewhere.

    Attributes:
      negative_slope: Slope for negative inputs.
    """

    negative_slope: float = 0.01

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.leaky_relu(inputs, negative_slope=self.negative_slope)


class Sigmoid(BaseActivation):
    """1 / (1 + exp(-x))."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.sigmoid(inputs)


class Tanh(BaseActivation):
    """Hyperbolic tangent."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jnp.tanh(inputs)


class Exp(BaseActivation):
    """exp(x)."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jnp.exp(inputs)


class GELU(BaseActivation):
    """x * Phi(x), Phi the standard normal CDF.

    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.

    Attributes:
      approximate: Use the tanh approximation of Phi; False uses erf.
    """

    approximate: bool = True

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.gelu(inputs, approximate=self.approximate)


class SiLU(BaseActivation):
    """x * sigmoid(x)."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.silu(inputs)


class Swish(BaseActivation):
    """x * sigmoid(x), the same function as `SiLU` under its other name.

    Ramachandran, Zoph and Le, "Searching for Activation Functions", 2017, arXiv:1710.05941.
    """

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.silu(inputs)


class Softplus(BaseActivation):
    """log(1 + exp(x))."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.softplus(inputs)


class ELU(BaseActivation):
    """x where x > 0, exp(x) - 1 elsewhere."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return jax.nn.elu(inputs)


class Identity(BaseActivation):
    """x."""

    def __call__(self, inputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
        return inputs

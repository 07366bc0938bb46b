"""Principal components for vectors that come out of an activation function."""

import enum
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from praxis import base_layer
from praxis.base_layer import PARAMS
from praxis.layers.checks import check_sizes

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams

# Smaller norms and probabilities count as this, where they are divided by or their log is taken.
TINY = 1e-6


class ActivationType(str, enum.Enum):  # noqa: UP042 (public base classes)
    """What gives the vectors from linear combinations of components."""

    IDENTITY = "IDENTITY"
    LEAKY_RELU = "LEAKY_RELU"
    SOFTMAX = "SOFTMAX"


def activate(
    x: Float[Array, "*B D"], kind: ActivationType, negative_slope: float
) -> Float[Array, "*B D"]:
    """Applies the activation; a softmax is over the last axis."""
    if kind == ActivationType.LEAKY_RELU:
        return jax.nn.leaky_relu(x, negative_slope)
    if kind == ActivationType.SOFTMAX:
        return jax.nn.softmax(x, axis=-1)
    return x


def deactivate(
    y: Float[Array, "*B D"], kind: ActivationType, negative_slope: float
) -> Float[Array, "*B D"]:
    """An input of the activation that gives `y`; of a softmax, the one with mean 0.

    A leaky ReLU of slope 0 has no such input for negative numbers, which are left as they are.
    """
    if kind == ActivationType.LEAKY_RELU and negative_slope > 0.0:
        return jnp.where(y < 0, y / negative_slope, y)
    if kind == ActivationType.SOFTMAX:
        logs = jnp.log(jnp.maximum(y, TINY))
        return logs - jnp.mean(logs, axis=-1, keepdims=True)
    return y


def bregman_divergence(
    targets: Float[Array, "B D"],
    inputs: Float[Array, "B D"],
    kind: ActivationType,
    negative_slope: float,
) -> Float[Array, " B"]:
    """How far the activation of `inputs` is from `targets`: the matching loss of the activation.

    Its gradient by `inputs` is `activate(inputs) - targets`. Half the squared distance, its
    likeness for leaky ReLU, or for a softmax the Kullback-Leibler divergence in nats.
    """
    if kind == ActivationType.SOFTMAX:
        logs = jnp.log(jnp.maximum(targets, TINY)) - jax.nn.log_softmax(inputs, axis=-1)
        return jnp.sum(targets * logs, axis=-1)
    if kind == ActivationType.LEAKY_RELU:

        def potential(x: Float[Array, "B D"]) -> Float[Array, "B D"]:
            return 0.5 * x * activate(x, kind, negative_slope)

        origin = deactivate(targets, kind, negative_slope)
        gap = potential(inputs) - potential(origin) - (inputs - origin) * targets
        return jnp.sum(gap, axis=-1)
    return 0.5 * jnp.sum(jnp.square(inputs - targets), axis=-1)


def normalised(gradient: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scales a gradient to a root mean square of 1."""
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient)))
    return gradient / jnp.maximum(norm, TINY) * math.sqrt(gradient.size)


class BregmanPCA(base_layer.BaseLayer):
    """Learns components of which vectors are combinations, before an activation function.

    `activation(coefficients . components + mean)` approximates the inputs, as measured by the
    matching loss of the activation. The coefficients of a batch, and in training the components,
    are found with steps along normalised gradients; the layer passes its inputs on. Amid et al.,
    "Layerwise Bregman Representation Learning", 2022, arXiv:2209.07080. Shapes: D is the product
    of `input_dims`, K is `num_components`.

    Attributes:
      num_components: K, at least 1. Required.
      input_dims: D, or the sizes of several axes. Required.
      activation_type: Where the inputs come from.
      negative_slope: Of a leaky ReLU.
      mean_beta: Weight of the mean in its moving average.
      coefficients_lr: Step size of the coefficients; it falls to 0 over the steps.
      coefficients_beta: Weight of the momentum of the coefficients.
      coefficients_steps: Steps for each batch.
      components_lr: Step size of the components.
      components_beta: Weight of the momentum of the components, which stays as it was made.
      start_step: First training step that moves mean and components.
      end_step: The step after the last one that does; more than `start_step`. Required.
      constant_lr_schedule: Keep `components_lr`. False: it falls to 0 at `end_step`.

    Variables:
      step: [], training steps; not trainable, as all others
      mean: [1, *input_dims], before the activation
      components: [K, *input_dims]
      components_momentum: [K, *input_dims]

    Raises:
      ValueError: during setup, if sizes or steps do not fit; in calls, for inputs of other sizes.
    """

    num_components: int = 0
    input_dims: int | Sequence[int] = 0
    activation_type: ActivationType = ActivationType.IDENTITY
    negative_slope: float = 0.0
    mean_beta: float = 0.99
    coefficients_lr: float = 0.01
    coefficients_beta: float = 0.9
    coefficients_steps: int = 20
    components_lr: float = 0.01
    components_beta: float = 0.9
    start_step: int = 0
    end_step: int = 0
    constant_lr_schedule: bool = True

    @property
    def _dims(self) -> tuple[int, ...]:
        dims = self.input_dims
        return (dims,) if isinstance(dims, int) else tuple(dims)

    def setup(self) -> None:
        check_sizes(self, "num_components")
        if not self._dims or min(self._dims) < 1:
            raise ValueError(
                f"{self.path_text}: input_dims is {self.input_dims}, expected at least 1, or a "
                "list of such sizes."
            )
        if self.end_step <= self.start_step:
            raise ValueError(
                f"{self.path_text}: end_step = {self.end_step} is not more than start_step = "
                f"{self.start_step}. Set it to the step at which components stop to move."
            )
        components = [self.num_components, *self._dims]
        self._create("step", [], WeightInit.Constant(0.0))
        self._create("mean", [1, *self._dims], WeightInit.Constant(0.0))
        self._create("components", components, self.params_init)
        self._create("components_momentum", components, WeightInit.Constant(0.0))

    def _create(self, name: str, shape: list[int], init: WeightInit) -> None:
        hparams = WeightHParams(
            shape=shape,
            init=init,
            dtype=jnp.float32,
            collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            mesh_shape=self.mesh_shape,
        )
        self.create_variable(name, hparams, trainable=False)

    def base_learning_rate(self, step: Shaped[Array, ""] | float) -> Float[Array, ""]:
        """The step size of the components at a training step."""
        rate = jnp.asarray(self.components_lr, jnp.float32)
        if self.constant_lr_schedule:
            return rate
        done = (step - self.start_step) / (self.end_step - self.start_step)
        return rate * jnp.clip(1.0 - done, 0.0, 1.0)

    def __call__(
        self, inputs: Float[Array, "B ..."], mask: Shaped[Array, "B ..."] | None = None
    ) -> tuple[Float[Array, "B ..."], Float[Array, "B K"]]:
        """Finds the coefficients of a batch; in training, moves mean and components.

        Args:
          inputs: [B, *input_dims].
          mask: [B] or [B, 1], 1 marks examples that count, 0 those that move nothing. None: all do.

        Returns:
          The inputs, in `fprop_dtype`; and the coefficients [B, K], without gradients.
        """
        if inputs.shape[1:] != self._dims:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [B, *input_dims] "
                f"with input_dims = {self._dims}."
            )
        batch = inputs.shape[0]
        targets = lax.stop_gradient(inputs).astype(jnp.float32)
        weights = jnp.ones([batch]) if mask is None else mask.reshape(batch)
        weights = weights.astype(jnp.float32)
        step = self.get_var("step")
        learns = (step >= self.start_step) & (step < self.end_step)
        mean = self._new_mean(targets, weights, learns)
        coefficients = self._fit(targets, self.get_var("components"), mean)
        if not self.do_eval:
            self.update_var("mean", mean)
            self._move_components(targets, coefficients * weights[:, jnp.newaxis], mean, learns)
            self.update_var("step", step + 1.0)
        self.add_summary("bregman_loss", lambda: self._loss(targets, coefficients, weights, mean))
        return inputs.astype(self.fprop_dtype), coefficients

    def _residual(
        self,
        coefficients: Float[Array, "B K"],
        components: Float[Array, "K ..."],
        mean: Float[Array, "1 ..."],
        targets: Float[Array, "B ..."],
    ) -> Float[Array, "B D"]:
        """Gradient of the loss by what goes into the activation, with one axis of dims."""
        outputs = self._activated(self._combined(coefficients, components, mean))
        return (outputs - targets).reshape(targets.shape[0], -1)

    def _combined(
        self,
        coefficients: Float[Array, "B K"],
        components: Float[Array, "K ..."],
        mean: Float[Array, "1 ..."],
    ) -> Float[Array, "B ..."]:
        return jnp.tensordot(coefficients, components, axes=1) + mean

    def _activated(self, x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return activate(x, self.activation_type, self.negative_slope)

    def _new_mean(
        self, targets: Float[Array, "B ..."], weights: Float[Array, " B"], learns: Bool[Array, ""]
    ) -> Float[Array, "1 ..."]:
        """The mean after this batch; as it was in evaluation and outside the steps that learn."""
        mean = self.get_var("mean")
        if self.do_eval:
            return mean
        total = jnp.tensordot(weights, targets, axes=1)[jnp.newaxis]
        batch_mean = total / jnp.maximum(jnp.sum(weights), 1.0)
        batch_mean = deactivate(batch_mean, self.activation_type, self.negative_slope)
        return jnp.where(learns, self.mean_beta * mean + (1 - self.mean_beta) * batch_mean, mean)

    def _fit(
        self,
        targets: Float[Array, "B ..."],
        components: Float[Array, "K ..."],
        mean: Float[Array, "1 ..."],
    ) -> Float[Array, "B K"]:
        """Coefficients after some steps from 0."""
        flat = components.reshape(self.num_components, -1)
        beta = self.coefficients_beta

        def move(
            k: Shaped[Array, ""], state: tuple[Float[Array, "B K"], Float[Array, "B K"]]
        ) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
            coefficients, momentum = state
            residual = self._residual(coefficients, components, mean, targets)
            momentum = beta * momentum + (1.0 - beta) * normalised(residual @ flat.T)
            rate = self.coefficients_lr * (1.0 - k / self.coefficients_steps)
            return coefficients - rate * momentum, momentum

        zeros = jnp.zeros([targets.shape[0], self.num_components], jnp.float32)
        return lax.fori_loop(0, self.coefficients_steps, move, (zeros, zeros))[0]

    def _move_components(
        self,
        targets: Float[Array, "B ..."],
        coefficients: Float[Array, "B K"],
        mean: Float[Array, "1 ..."],
        learns: Bool[Array, ""],
    ) -> None:
        """One step of the components; coefficients of examples that do not count are 0."""
        components = self.get_var("components")
        gradient = coefficients.T @ self._residual(coefficients, components, mean, targets)
        beta = self.components_beta
        momentum = beta * self.get_var("components_momentum")
        momentum += (1.0 - beta) * normalised(gradient).reshape(components.shape)
        moved = components - self.base_learning_rate(self.get_var("step")) * momentum
        self.update_var("components", jnp.where(learns, moved, components))

    def _loss(
        self,
        targets: Float[Array, "B ..."],
        coefficients: Float[Array, "B K"],
        weights: Float[Array, " B"],
        mean: Float[Array, "1 ..."],
    ) -> Float[Array, ""]:
        """Mean divergence of the examples that count."""
        combined = self._combined(coefficients, self.get_var("components"), mean)
        losses = bregman_divergence(
            targets.reshape(-1, self._dims[-1]),
            combined.reshape(-1, self._dims[-1]),
            self.activation_type,
            self.negative_slope,
        )
        by_example = jnp.sum(losses.reshape(targets.shape[0], -1), axis=-1)
        return jnp.sum(by_example * weights) / jnp.maximum(jnp.sum(weights), 1.0)

    def reconstruct(self, coefficients: Float[Array, "B K"]) -> Float[Array, "B ..."]:
        """The vectors [B, *input_dims] that coefficients stand for."""
        components, mean = self.get_var("components"), self.get_var("mean")
        return self._activated(self._combined(coefficients, components, mean))


__all__ = [
    "PARAMS",
    "ActivationType",
    "BregmanPCA",
    "WeightHParams",
    "WeightInit",
    "activate",
    "bregman_divergence",
    "deactivate",
]

"""Decay with the inverse square root of the step, with and without a ramp."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from praxis.optim.schedules.base import BaseSchedule, as_float


class Transformer(BaseSchedule):
    """Linear warm-up, then the inverse square root of the step, scaled by the model width.

    model_dim^-0.5 min((s + 1) w^-1.5, (s + 1)^-0.5) with w = warmup_steps * worker_replicas,
    section 5.3 of Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.

    Attributes:
      warmup_steps: steps of warm-up for one replica.
      model_dim: D, model width.
      worker_replicas: number of replicas; stretches the warm-up.
      decay_end: step from which the value stays as it is, or None.
    """

    warmup_steps: int = 4000
    model_dim: int = 512
    worker_replicas: int = 1
    decay_end: int | None = None

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        count = as_float(step)
        if self.decay_end is not None:
            count = jnp.minimum(count, self.decay_end)
        warmup = float(self.warmup_steps * self.worker_replicas)
        rising, falling = (count + 1) * warmup**-1.5, (count + 1) ** -0.5
        return self.model_dim**-0.5 * jnp.minimum(rising, falling)


class SqrtDecay(BaseSchedule):
    """multiplier / sqrt(max(step - offset, decay_start)).

    Attributes:
      decay_start: step, counted from `offset`, until which the value is constant.
      multiplier: numerator.
      offset: steps taken off the step first.
    """

    decay_start: int = 10_000
    multiplier: float = 1.0
    offset: float = 0.0

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        shifted = jnp.maximum(as_float(step) - self.offset, float(self.decay_start))
        return self.multiplier / jnp.sqrt(shifted)


class LinearRampupSqrtDecay(BaseSchedule):
    """peak min(s / w, sqrt(w / s)) with s = max(step, 1) and w = warmup_steps.

    Attributes:
      peak: the largest value, reached at `warmup_steps`.
      warmup_steps: w, at least 1.

    Raises:
      ValueError: when built, if `warmup_steps` is below 1.
    """

    peak: float = 1.0
    warmup_steps: int = 4000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_steps < 1:
            raise ValueError(
                f"LinearRampupSqrtDecay: warmup_steps is {self.warmup_steps}, expected at least 1."
            )

    def value_at(self, step: ArrayLike) -> Float[Array, ""]:
        count = jnp.maximum(as_float(step), 1.0)
        return self.peak * jnp.minimum(
            count / self.warmup_steps, jnp.sqrt(self.warmup_steps / count)
        )

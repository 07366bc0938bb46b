"""Bi-tempered logistic loss: a cross entropy that bounds the pull of outliers and bad labels."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers.embedding.losses import LabelSmoothing, at_least_float32

WeightHParams = base_layer.WeightHParams
WeightInit = base_layer.WeightInit

# Temperatures are [], the same for all examples.
Temperature = Float[Array, ""]

NUM_ITERATIONS = 5
# Keeps the logarithm of a label of 0 finite.
LABEL_EPSILON = 1e-10


def tempered_log_of_exp(log_x: Float[Array, "..."], t: Temperature) -> Float[Array, "..."]:
    """Computes `log_t(x) = (x^(1-t) - 1) / (1-t)`, or log x for t = 1, given log x.

    Through `expm1` there is no cancellation for t close to 1, which warm-up passes through.
    """
    is_log = t == 1
    exponent = jnp.where(is_log, 1, 1 - t)
    return jnp.where(is_log, log_x, jnp.expm1(exponent * log_x) / exponent)


def log_of_tempered_exp(x: Float[Array, "..."], t: Temperature) -> Float[Array, "..."]:
    """Computes the logarithm of `exp_t(x) = max(0, 1 + (1-t) x)^(1/(1-t))`; x itself for t = 1."""
    is_exp = t == 1
    exponent = jnp.where(is_exp, 1, 1 - t)
    return jnp.where(is_exp, x, jnp.log1p(jnp.maximum(exponent * x, -1)) / exponent)


def total_tempered_exp(x: Float[Array, "*B V"], t: Temperature) -> Float[Array, "*B 1"]:
    """Sum of `exp_t(x)` over the classes."""
    return jnp.sum(jnp.exp(log_of_tempered_exp(x, t)), axis=-1, keepdims=True)


def normalizer_by_fixed_point(x: Float[Array, "*B V"], t: Temperature) -> Float[Array, "*B 1"]:
    """Solves `sum exp_t(x - n) = 1` for n, where t >= 1 and the largest x is 0.

    Algorithm 1 of Amid et al., 2019 (see `bi_tempered_logistic_loss`). At t = 1 it does not move
    and gives logsumexp.
    """

    def rescale(_: Any, scaled: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        return x * total_tempered_exp(scaled, t) ** (1 - t)

    scaled = lax.fori_loop(0, NUM_ITERATIONS, rescale, x)
    return -tempered_log_of_exp(-jnp.log(total_tempered_exp(scaled, t)), t)


def normalizer_by_bisection(x: Float[Array, "*B V"], t: Temperature) -> Float[Array, "*B 1"]:
    """Solves `sum exp_t(x - n) = 1` for n, where t < 1 and the largest x is 0.

    The few halvings leave an error of up to 1/64 of the first interval. It is part of the values
    that existing models were trained with.
    """
    reachable = (1 - t) * x > -1  # All other classes have probability 0 whatever n >= 0 is.
    num_reachable = jnp.sum(reachable, axis=-1, keepdims=True).astype(x.dtype)
    upper = -tempered_log_of_exp(-jnp.log(num_reachable), t)

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        lower, upper = bounds
        middle = (lower + upper) / 2
        too_small = total_tempered_exp(x - middle, t) > 1
        return jnp.where(too_small, middle, lower), jnp.where(too_small, upper, middle)

    lower, upper = lax.fori_loop(0, NUM_ITERATIONS, halve, (jnp.zeros_like(upper), upper))
    return (lower + upper) / 2


def tempered_log_softmax(logits: Float[Array, "*B V"], t: Temperature) -> Float[Array, "*B V"]:
    """Log-probabilities `log exp_t(logits - n)`, with n such that the probabilities add up to 1.

    For t = 1 this is log_softmax; a larger t gives heavier tails, a smaller one probabilities of
    exactly 0 (log-probabilities of -inf).
    """
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    normalizer = lax.cond(t < 1, normalizer_by_bisection, normalizer_by_fixed_point, shifted, t)
    return log_of_tempered_exp(shifted - normalizer, t)


@jax.custom_jvp
def tempered_divergence(
    logits: Float[Array, "*B V"], labels: Float[Array, "*B V"], t1: Temperature, t2: Temperature
) -> Float[Array, "*B"]:
    """The loss of `bi_tempered_logistic_loss`, in the dtype of its arguments."""
    log_probs = tempered_log_softmax(logits, t2)
    surprise = tempered_log_of_exp(jnp.log(labels + LABEL_EPSILON), t1)
    surprise -= tempered_log_of_exp(log_probs, t1)
    # A class of probability 0 may cost infinitely much, but nothing if it is not asked for.
    cost = jnp.where(labels > 0, labels * surprise, 0)
    cost -= (labels ** (2 - t1) - jnp.exp((2 - t1) * log_probs)) / (2 - t1)
    return jnp.sum(cost, axis=-1)


@tempered_divergence.defjvp
def tempered_divergence_jvp(
    primals: tuple[Array, Array, Array, Array], tangents: tuple[Array, Array, Array, Array]
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Derivative for the logits alone, as if the normalizer had converged.

    The derivative of the normalizer follows from `sum exp_t2(logits - n) = 1`: it is the escort
    distribution, `p^t2` scaled to add up to 1.
    """
    logits, labels, t1, t2 = primals
    log_probs = tempered_log_softmax(logits, t2)
    possible = log_probs > -jnp.inf  # Around a probability of exactly 0, it stays 0.
    finite = jnp.where(possible, log_probs, 0)
    # delta = (p - y) p^(t2-t1), in two terms: where y is 0 the power alone may overflow.
    delta = jnp.where(possible, jnp.exp((1 + t2 - t1) * finite), 0)
    delta -= jnp.where(possible & (labels > 0), labels * jnp.exp((t2 - t1) * finite), 0)
    escorts = jnp.where(possible, jnp.exp(t2 * finite), 0)
    escorts /= jnp.sum(escorts, axis=-1, keepdims=True)
    slope = delta - escorts * jnp.sum(delta, axis=-1, keepdims=True)
    loss = tempered_divergence(logits, labels, t1, t2)
    return loss, jnp.sum(slope * tangents[0], axis=-1)


def bi_tempered_logistic_loss(
    logits: Float[Array, "*B V"],
    labels: Shaped[Array, "*B V"],
    *,
    t1: float | Temperature,
    t2: float | Temperature,
    label_smoothing: float = 0.0,
) -> Float[Array, "*B"]:
    """Tempered Bregman divergence between labels y and tempered softmax probabilities p.

    Amid et al., "Robust Bi-Tempered Logistic Loss Based on Bregman Divergences", 2019,
    arXiv:1906.03361: the sum over the classes of
    `y (log_t1(y) - log_t1(p)) - (y^(2-t1) - p^(2-t1)) / (2-t1)`, with `p = exp_t2(logits - n)`.
    t1 below 1 bounds the loss, so that outliers pull less; t2 above 1 gives p a heavy tail, so that
    labels next to the decision boundary do. With t1 = t2 = 1 it is the cross entropy less the
    entropy of the labels. Gradients flow through the logits only.

    Args:
      logits: [..., V].
      labels: [..., V], one-hot or probabilities.
      t1: Temperature of the divergence, below 2.
      t2: Temperature of the softmax.
      label_smoothing: Probability taken from the labelled class and spread over the V - 1 others.

    Returns:
      [...], at least float32.
    """
    logits = at_least_float32(logits)
    smoothing = LabelSmoothing.over_other_classes(label_smoothing, logits.shape[-1])
    labels = smoothing.apply(labels.astype(logits.dtype))
    t1, t2 = (jnp.asarray(t, logits.dtype) for t in (t1, t2))
    return tempered_divergence(logits, labels, t1, t2)


class BiTemperedLoss(base_layer.BaseLayer):
    """Bi-tempered logistic loss, with temperatures that training can bring in slowly.

    See `bi_tempered_logistic_loss`; V is the number of classes. With s from `temperature_schedule`,
    training uses the temperatures `s + (1 - s) * t1` and `s + (1 - s) * t2`, so that s = 1 is the
    cross entropy. Evaluation uses `t1` and `t2`.

    Attributes:
      t1: Temperature of the divergence, below 2. Below 1 the loss is bounded.
      t2: Temperature of the softmax. Above 1 its tail is heavy.
      label_smoothing: Probability taken from the labelled class and spread over the others, at
        least 0 and below 1.
      start_step: Training calls before the temperatures start to leave 1.
      end_step: Training calls until they are `t1` and `t2`, not below `start_step`. 0 for no
        schedule.

    Variables:
      count: [], not trainable, float32, the training calls so far.

    Raises:
      ValueError: during setup, if a field is out of range; in `__call__`, if the shapes of logits
        and labels differ, or labels are smoothed and there is only one class.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> loss = pax_fiddle.build(pax_fiddle.Config(BiTemperedLoss, name="loss", t1=0.8, t2=1.2))
      >>> logits, labels = jnp.zeros([2, 3]), jax.nn.one_hot(jnp.array([0, 2]), 3)  # [B, V]
      >>> variables = loss.init(jax.random.PRNGKey(0), logits, labels)
      >>> loss.apply(variables, logits, labels).shape
      (2,)
    """

    t1: float = 1.0
    t2: float = 1.0
    label_smoothing: float = 0.0
    start_step: int = 0
    end_step: int = 0

    def setup(self) -> None:
        if self.end_step < self.start_step:
            raise ValueError(
                f"{self.path_text}: end_step = {self.end_step} is below start_step = "
                f"{self.start_step}. Set end_step to the training call from which t1 and t2 hold."
            )
        if self.t1 >= 2:
            raise ValueError(
                f"{self.path_text}: t1 is {self.t1}, expected a temperature below 2. The loss is "
                "robust for t1 from 0 to 1."
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"{self.path_text}: label_smoothing is {self.label_smoothing}, expected a "
                "probability, at least 0 and below 1."
            )
        self.create_variable(
            "count",
            WeightHParams(
                shape=[],
                init=WeightInit.Constant(0.0),
                dtype=jnp.float32,
                collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            ),
            trainable=False,
        )

    def temperature_schedule(self, count: Float[Array, ""]) -> Float[Array, ""]:
        """Share of plain cross entropy: 1 up to `start_step`, then linear to 0 at `end_step`.

        Args:
          count: [], training calls before this one.

        Returns:
          [], from 0 to 1; 0 in evaluation.
        """
        if self.do_eval:
            return jnp.zeros_like(count)
        warmup = max(self.end_step - self.start_step, 1)
        share = jnp.clip(1 - (count - self.start_step) / warmup, 0, 1)
        if self.end_step == 0:
            # Without a schedule the first call is like all others.
            share = jnp.where(count == 0, 0, share)
        return share

    def __call__(
        self, logits: Float[Array, "*B V"], labels: Shaped[Array, "..."]
    ) -> Float[Array, "*B"]:
        """Computes the loss of each example; in training, counts the call.

        Args:
          logits: [..., V].
          labels: [..., V], one-hot or probabilities.

        Returns:
          [...], at least float32.
        """
        if labels.shape != logits.shape:
            raise ValueError(
                f"{self.path_text}: logits have shape {logits.shape} and labels have shape "
                f"{labels.shape}, expected [..., V] for both. Labels are one-hot or probabilities, "
                "not ids."
            )
        if self.label_smoothing > 0 and logits.shape[-1] < 2:
            raise ValueError(
                f"{self.path_text}: label_smoothing is {self.label_smoothing}, but logits of shape "
                f"{logits.shape} have no other class to give it to. Set it to 0."
            )
        count = self.get_var("count")
        share = self.temperature_schedule(count)
        if not self.do_eval:
            self.update_var("count", count + 1)
        return bi_tempered_logistic_loss(
            logits,
            labels,
            t1=share + (1 - share) * self.t1,
            t2=share + (1 - share) * self.t2,
            label_smoothing=self.label_smoothing,
        )

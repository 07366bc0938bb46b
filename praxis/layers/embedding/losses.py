"""Cross entropy and z-loss as functions of logits.

V is the number of classes. Everything is computed in float32 (float64 when the logits are).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped


@dataclasses.dataclass(frozen=True)
class LabelSmoothing:
    """Target distribution of a label: `on` at the class of the label, `off` at each other one.

    Attributes:
      on: Probability of the labelled class.
      off: Probability of each other class.
    """

    on: float = 1.0
    off: float = 0.0

    @classmethod
    def over_other_classes(cls, prob: float, num_classes: int) -> "LabelSmoothing":
        """Takes `prob` from the labelled class and spreads it over the V - 1 others."""
        return cls(on=1.0 - prob, off=prob / (num_classes - 1)) if prob else cls()

    @classmethod
    def over_all_classes(cls, prob: float, num_classes: int) -> "LabelSmoothing":
        """Mixes the label with the uniform distribution over V classes, with weight `prob`.

        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015,
        arXiv:1512.00567, section 7.
        """
        return cls(on=1.0 - prob + prob / num_classes, off=prob / num_classes)

    def apply(self, probs: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        """Smooths given distributions, or one-hot labels."""
        return probs * (self.on - self.off) + self.off


def at_least_float32(x: Shaped[Array, "*B"]) -> Float[Array, "*B"]:
    """Widens 16-bit floats, and turns integers into floats."""
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


def is_label(class_ids: Integer[Array, "*B"], num_classes: int) -> Bool[Array, "*B V"]:
    """True at the class of the label. Nowhere true for an id outside [0, V)."""
    return class_ids[..., jnp.newaxis] == jax.lax.broadcasted_iota(
        class_ids.dtype, (*class_ids.shape, num_classes), class_ids.ndim
    )


def label_cross_entropy(
    logits: Float[Array, "*B V"],
    class_ids: Integer[Array, "*B"],
    smoothing: LabelSmoothing | None = None,
) -> Float[Array, "*B"]:
    """Cross entropy of the softmax of `logits` with a smoothed label.

    With n = logsumexp(logits): `(on - off) * (n - logits[label]) + off * sum(n - logits)`. Neither
    the labels nor the log-probabilities exist as an array of floats over the classes: the logit of
    the label is a masked sum, which compiles to one pass over the logits (forward and backward) and
    needs no gather where the classes are sharded.

    Args:
      logits: [..., V].
      class_ids: [...]. An id outside [0, V) has no labelled class: without smoothing the loss is 0.
      smoothing: None for none.

    Returns:
      [...], nats.
    """
    smoothing = smoothing or LabelSmoothing()
    logits = at_least_float32(logits)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)  # [...]
    num_classes = logits.shape[-1]
    label_logits = jnp.sum(jnp.where(is_label(class_ids, num_classes), logits, 0), axis=-1)
    has_label = (class_ids >= 0) & (class_ids < num_classes)
    loss = jnp.where(has_label, log_normalizer - label_logits, 0)
    if smoothing.off == 0:
        return smoothing.on * loss
    spread = jnp.sum(log_normalizer[..., jnp.newaxis] - logits, axis=-1)
    return (smoothing.on - smoothing.off) * loss + smoothing.off * spread


def distribution_cross_entropy(
    log_probs: Float[Array, "*B V"], probs: Float[Array, "*B V"]
) -> Float[Array, "*B"]:
    """Cross entropy with given class probabilities, through which no gradient flows."""
    return -jnp.sum(log_probs * jax.lax.stop_gradient(probs), axis=-1)


def sigmoid_cross_entropy(
    logits: Float[Array, "*B V"], probs: Float[Array, "*B V"]
) -> Float[Array, "*B V"]:
    """Cross entropy of one yes-or-no question a class: `softplus(logits) - logits * probs`.

    Written as `relu(l) - l * y + log1p(exp(-|l|))`, which never overflows.
    """
    overflow_free = jax.nn.relu(logits) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return overflow_free - logits * probs


def mean_square(
    log_normalizers: Float[Array, "*B"], weights: Float[Array, "*B"], denominator: Float[Array, ""]
) -> Float[Array, ""]:
    """Weighted mean of squared log-normalizers (logsumexp of the logits): the z-loss, unscaled.

    It keeps them near 0. Zoph et al., "ST-MoE", 2022, arXiv:2202.08906, equation 5.
    """
    return jnp.sum(jnp.square(log_normalizers) * weights) / denominator


def soft_cap(logits: Float[Array, "*B V"], cap: int | float | None) -> Float[Array, "*B V"]:
    """Squeezes logits into (-cap, cap): `cap * tanh(logits / cap)`. 0 and None leave them alone."""
    if not cap:
        return logits
    return cap * jnp.tanh(logits / cap)

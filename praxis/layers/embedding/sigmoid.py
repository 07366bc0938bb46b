"""Output layer that asks one yes-or-no question a class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, py_utils
from praxis.layers import linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.embedding import labels, losses
from praxis.layers.embedding.softmax import WEIGHT_EPSILON, LayerTpl, projection_config

NestedMap = py_utils.NestedMap
template_field = base_layer.template_field


class SigmoidCrossEntropy(base_layer.BaseLayer):
    """Projects to the classes, and computes a logistic loss for each of them.

    Loss of a class with logit l and probability y: `softplus(l) - l * y`. Shapes: D is
    `input_dims`, V is `num_classes`.

    Attributes:
      input_dims: D, at least 1. Required.
      num_classes: V, at least 1. Required.
      soft_cap_logits: c of `c * tanh(logits / c)`. 0 or None: no cap. Only with a projection.
      bias_init: Initial value of the bias.
      feed_forward_tpl: Config of the projection. D, V, `bias_init` and this layer's sharding are
        filled in, and the activation is the identity. None: the inputs are the logits, and V must
        be D.

    Variables:
      logits_ffn/linear/w: [D, V]
      logits_ffn/bias/b: [V]

    Raises:
      ValueError: during setup, if a size is missing, or there is no projection and V is not D; in a
        call, if the inputs or the labels have the wrong shape, there are no labels, or there are
        `class_ids` for a single class.
      TypeError: in a call, if `class_ids` are not integers.
    """

    input_dims: int = 0
    num_classes: int = 0
    soft_cap_logits: float | None = 0.0
    bias_init: float | None = 0.0
    feed_forward_tpl: LayerTpl | None = template_field(linears.FeedForward)

    def setup(self) -> None:
        check_sizes(self, "input_dims", "num_classes")
        if self.feed_forward_tpl is not None:
            self.create_child("logits_ffn", projection_config(self, self.feed_forward_tpl))
        elif self.input_dims != self.num_classes:
            raise ValueError(
                f"{self.path_text}: feed_forward_tpl is None, so the inputs are the logits, but "
                f"input_dims = {self.input_dims} is not num_classes = {self.num_classes}. "
                "Make them equal, or set feed_forward_tpl."
            )

    def get_logits(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Projects to the classes.

        Args:
          inputs: [..., D].

        Returns:
          [..., V], in `fprop_dtype`, after the soft cap; the inputs themselves without projection.
        """
        check_last_axis(self, inputs, "input_dims")
        if self.feed_forward_tpl is None:
            return inputs
        return losses.soft_cap(self.logits_ffn(inputs), self.soft_cap_logits)

    def logits_to_logp(self, logits: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        """Log-probability of yes, for each class, in float32."""
        return jax.nn.log_sigmoid(losses.at_least_float32(logits))

    def __call__(
        self,
        inputs: Float[Array, "..."],
        class_weights: Shaped[Array, "..."],
        class_ids: Shaped[Array, "..."] | None = None,
        class_probabilities: Shaped[Array, "..."] | None = None,
    ) -> NestedMap:
        """Computes logits, log-probabilities and the loss.

        Args:
          inputs: [..., D].
          class_weights: [..., 1], weight of each position in the totals; or [..., V] with V above
            1, weight of each class at each position.
          class_ids: [..., 1], integers: the one class that is a yes.
          class_probabilities: [..., V], used instead of `class_ids` where both are given.

        Returns:
          A NestedMap, floats in the dtype of the inputs, of
          - logits: [..., V] and log_probs: [..., V]
          - per_example_argmax: [...], the most likely class
          - per_example_xent: [...], sum over the classes; weighted only by weights of classes
          - total_xent: [], weighted sum of per_example_xent
          - total_weight: [], sum of `class_weights`
          - avg_xent: [], `total_xent / (total_weight + 1e-6)`
        """
        labels.check_labels(
            self,
            inputs,
            class_weights,
            class_ids,
            class_probabilities,
            weight_widths=(1, self.num_classes),
        )
        if class_ids is not None and self.num_classes == 1:
            raise ValueError(
                f"{self.path_text}: class_ids are given, but with num_classes = 1 an id says "
                "nothing. Pass class_probabilities of shape [..., 1]."
            )
        logits = losses.at_least_float32(self.get_logits(inputs))
        if class_probabilities is None:
            assert class_ids is not None
            probs = jax.nn.one_hot(class_ids[..., 0], self.num_classes, dtype=logits.dtype)
        else:
            probs = class_probabilities.astype(logits.dtype)

        weights = class_weights.astype(jnp.float32)
        weights = jnp.broadcast_to(weights, (*inputs.shape[:-1], weights.shape[-1]))
        class_xent = losses.sigmoid_cross_entropy(logits, probs)  # [..., V]
        if weights.shape[-1] == 1:
            xent = jnp.sum(class_xent, axis=-1)
            total_xent = jnp.sum(xent * weights[..., 0])
        else:
            xent = jnp.sum(class_xent * weights, axis=-1)
            total_xent = jnp.sum(xent)
        total_weight = jnp.sum(weights)
        outputs = NestedMap(
            logits=logits,
            log_probs=self.logits_to_logp(logits),
            per_example_xent=xent,
            total_xent=total_xent,
            total_weight=total_weight,
            avg_xent=total_xent / (total_weight + WEIGHT_EPSILON),
        ).Transform(lambda x: x.astype(inputs.dtype))
        outputs.per_example_argmax = jnp.argmax(logits, axis=-1)
        return outputs

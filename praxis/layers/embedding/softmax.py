"""Softmax output layer: logits over the classes and their cross entropy."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import activations, linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.embedding import labels, losses
from praxis.layers.embedding.chunks import by_chunks, check_chunk_size, fits_chunks

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
NestedMap = py_utils.NestedMap
template_field = base_layer.template_field

# Keeps avg_xent finite for a batch of padding.
WEIGHT_EPSILON = 1e-6


class TokenStats(NamedTuple):
    """What the loss needs of each position.

    Attributes:
      xent: [...], cross entropy in nats, float32.
      argmax: [...], the most likely class.
      log_normalizer: [...], logsumexp of the logits, float32.
    """

    xent: Float[Array, "*B"]
    argmax: Integer[Array, "*B"]
    log_normalizer: Float[Array, "*B"]


class FullSoftmax(base_layer.BaseLayer):
    """Projects to the classes, and computes the softmax cross entropy with labels.

    The loss comes from the integer labels by `logsumexp(logits) - logits[label]`, so that under
    `jit` no array over the classes exists but the logits. `logits` and `log_probs` are among the
    outputs; they cost nothing where nobody reads them. Shapes: D is `input_dims`, V is
    `num_classes`.

    Attributes:
      input_dims: D, at least 1. Required.
      num_classes: V, at least 1. Required.
      soft_cap_logits: c of `c * tanh(logits / c)`. 0 or None: no cap.
      bi_tempered_loss_tpl: Config of a loss `(logits, probs) -> xent` instead of the cross entropy.
      label_smoothing_prob: Probability taken from the labelled class and spread over the others.
        For `class_ids` only.
      label_smoothing_apply_for_eval: Whether the smoothing holds in evaluation too.
      z_loss_weight: Weight of the auxiliary loss `mean(logsumexp(logits)^2)`. 0: no z-loss.
      bias_init: Initial value of the bias.
      feed_forward_tpl: Config of the projection. D, V, `bias_init` and this layer's sharding are
        filled in, and the activation is the identity. None: the inputs are the logits.
      scale_before_logits: Whether the inputs are multiplied by 1 / sqrt(D).
      chunk_size: Positions (tokens) whose logits exist at a time. With it, and with labels from
        `class_ids` only, inputs [B, T, D], T at least `chunk_size` and no `bi_tempered_loss_tpl`,
        the loss is computed chunk by chunk, the backward pass computes the logits again, and the
        outputs `logits` and `log_probs` are None. In the other cases it has no effect.

    Variables:
      logits_ffn/linear/w: [D, V]
      logits_ffn/bias/b: [V]

    Raises:
      ValueError: during setup, if a size is missing or a probability is out of range; in a call, if
        the inputs or the labels have the wrong shape, or there are no labels.
      TypeError: in a call, if `class_ids` are not integers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> config = pax_fiddle.Config(FullSoftmax, name="softmax", input_dims=4, num_classes=11)
      >>> layer = pax_fiddle.build(config)
      >>> x, ids = jnp.ones([2, 3, 4]), jnp.zeros([2, 3, 1], jnp.int32)
      >>> variables = layer.init(jax.random.PRNGKey(0), x, jnp.ones([2, 3, 1]), ids)
      >>> outputs = layer.apply(variables, x, jnp.ones([2, 3, 1]), ids)
      >>> outputs.per_example_xent.shape, outputs.avg_xent.shape
      ((2, 3), ())
    """

    input_dims: int = 0
    num_classes: int = 0
    soft_cap_logits: float | None = 0.0
    bi_tempered_loss_tpl: LayerTpl | None = template_field(None)
    label_smoothing_prob: float = 0.0
    label_smoothing_apply_for_eval: bool = True
    z_loss_weight: float = 0.0
    bias_init: float | None = 0.0
    feed_forward_tpl: LayerTpl | None = template_field(linears.FeedForward)
    scale_before_logits: bool = False
    chunk_size: int | None = None

    def setup(self) -> None:
        self._check_config()
        self._create_projection()
        if self.bi_tempered_loss_tpl is not None:
            self.create_child("bi_tempered_loss", self.bi_tempered_loss_tpl)

    def _check_config(self) -> None:
        """Refuses sizes and probabilities that make no sense."""
        check_sizes(self, "input_dims", "num_classes")
        check_smoothing(self)
        check_chunk_size(self)

    def _create_projection(self) -> None:
        """Creates what `get_logits` multiplies with."""
        if self.feed_forward_tpl is not None:
            self.create_child("logits_ffn", projection_config(self, self.feed_forward_tpl))

    def get_logits(
        self,
        inputs: Float[Array, "*B D"],
        input_ids: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "*B V"]:
        """Projects to the classes.

        Args:
          inputs: [..., D].
          input_ids: [...], the tokens that gave the inputs. Not read here; for subclasses.

        Returns:
          [..., V], in `fprop_dtype`, after the soft cap.
        """
        del input_ids
        if self.feed_forward_tpl is None:
            check_last_axis(self, inputs, "num_classes")
        else:
            check_last_axis(self, inputs, "input_dims")
        if self.scale_before_logits:
            inputs *= 1 / math.sqrt(self.input_dims)
        logits = inputs if self.feed_forward_tpl is None else self.logits_ffn(inputs)
        return losses.soft_cap(logits, self.soft_cap_logits)

    def logits_to_logp(self, logits: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
        """Log-probabilities of the classes, in the dtype of the logits."""
        return jax.nn.log_softmax(logits, axis=-1)

    def __call__(
        self,
        inputs: Float[Array, "..."],
        class_weights: Shaped[Array, "..."],
        class_ids: Shaped[Array, "..."] | None = None,
        class_probabilities: Shaped[Array, "..."] | None = None,
        input_ids: Shaped[Array, "..."] | None = None,
    ) -> NestedMap:
        """Computes logits, log-probabilities and the loss.

        Args:
          inputs: [..., D].
          class_weights: [..., 1], weight of each position in the totals; 0 leaves it out.
          class_ids: [..., 1], integer labels. An id outside [0, V) has loss 0.
          class_probabilities: [..., V], used instead of `class_ids` where both are given.
          input_ids: [...], the tokens that gave the inputs, for `get_logits`.

        Returns:
          A NestedMap of
          - logits: [..., V] and log_probs: [..., V], in the dtype of the inputs; None in chunks
          - per_example_argmax: [...], the most likely class
          - per_example_xent: [...], float32, not weighted
          - total_xent: [], float32, weighted sum of per_example_xent
          - total_weight: [], float32
          - avg_xent: [], float32, `total_xent / (total_weight + 1e-6)`
          - accuracy: [], float32, only with `class_ids`; NaN where all weights are 0
          - z_loss: [], float32, only with `z_loss_weight`; also added to the auxiliary losses
        """
        labels.check_labels(self, inputs, class_weights, class_ids, class_probabilities)
        weights = jnp.broadcast_to(class_weights[..., 0].astype(jnp.float32), inputs.shape[:-1])
        ids = None if class_ids is None else class_ids[..., 0]
        if ids is not None and self._runs_in_chunks(inputs, class_probabilities):
            logits, log_probs = None, None
            stats = self._stats_in_chunks(inputs, ids, input_ids)
        else:
            wide_logits = losses.at_least_float32(self.get_logits(inputs, input_ids))
            wide_log_probs = self.logits_to_logp(wide_logits)
            stats = self._stats(wide_logits, ids, class_probabilities)
            logits = wide_logits.astype(inputs.dtype)
            log_probs = wide_log_probs.astype(inputs.dtype)

        total_xent = jnp.sum(stats.xent * weights)
        total_weight = jnp.sum(weights)
        outputs = NestedMap(
            logits=logits,
            log_probs=log_probs,
            per_example_argmax=stats.argmax,
            per_example_xent=stats.xent,
            total_xent=total_xent,
            total_weight=total_weight,
            avg_xent=total_xent / (total_weight + WEIGHT_EPSILON),
        )
        if ids is not None:
            outputs.accuracy = jnp.sum((stats.argmax == ids) * weights) / total_weight
        if self.z_loss_weight > 0:
            outputs.z_loss = self.z_loss_weight * losses.mean_square(
                stats.log_normalizer, weights, total_weight
            )
            self.add_summary("aux_z_loss", outputs.z_loss)
            self.add_aux_loss("aux_z_loss", outputs.z_loss)
        return outputs

    def _smoothing(self) -> losses.LabelSmoothing:
        """Smoothing of the labels in this mode."""
        on = self.label_smoothing_apply_for_eval or not self.do_eval
        prob = self.label_smoothing_prob if on else 0.0
        return losses.LabelSmoothing.over_other_classes(prob, self.num_classes)

    def _stats(
        self,
        logits: Float[Array, "..."],
        ids: Integer[Array, "..."] | None,
        probs: Shaped[Array, "..."] | None,
    ) -> TokenStats:
        """Loss and prediction of each position.

        Args:
          logits: [..., V], float32.
          ids: [...], read where `probs` is None.
          probs: [..., V] or None.
        """
        if self.bi_tempered_loss_tpl is not None:
            xent = self.bi_tempered_loss(logits, self._target_probs(ids, probs, logits))
        elif probs is not None:
            xent = losses.distribution_cross_entropy(self.logits_to_logp(logits), probs)
        else:
            assert ids is not None
            xent = losses.label_cross_entropy(logits, ids, self._smoothing())
        return TokenStats(
            xent=xent,
            argmax=jnp.argmax(logits, axis=-1),
            log_normalizer=jax.nn.logsumexp(logits, axis=-1),
        )

    def _target_probs(
        self,
        ids: Integer[Array, "..."] | None,
        probs: Shaped[Array, "..."] | None,
        logits: Float[Array, "..."],
    ) -> Float[Array, "..."]:
        """The target distribution as an array, for losses that need it."""
        if probs is None:
            one_hot = jax.nn.one_hot(ids, self.num_classes, dtype=logits.dtype)
            probs = self._smoothing().apply(one_hot)
        return jax.lax.stop_gradient(probs)

    def _runs_in_chunks(
        self, inputs: Float[Array, "..."], class_probabilities: Shaped[Array, "..."] | None
    ) -> bool:
        return (
            class_probabilities is None
            and self.bi_tempered_loss_tpl is None
            and fits_chunks(inputs, self.chunk_size)
        )

    def _stats_in_chunks(
        self,
        inputs: Float[Array, "B T D"],
        ids: Integer[Array, "B T"],
        input_ids: Shaped[Array, "B T"] | None,
    ) -> TokenStats:
        """`_stats` of one chunk of positions at a time."""
        assert self.chunk_size is not None

        def stats_of_chunk(layer, inputs, ids, input_ids):
            logits = losses.at_least_float32(layer.get_logits(inputs, input_ids))
            return layer._stats(logits, ids, None)

        return by_chunks(self, stats_of_chunk, (inputs, ids, input_ids), self.chunk_size)


def check_smoothing(layer: base_layer.BaseLayer) -> None:
    """Refuses a `label_smoothing_prob` that is no probability, or that has nowhere to go.

    Raises:
      ValueError: if it is not in [0, 1), or positive with a single class.
    """
    prob, num_classes = layer.label_smoothing_prob, layer.num_classes
    if not 0 <= prob < 1:
        raise ValueError(
            f"{layer.path_text}: label_smoothing_prob is {prob}, expected at least 0 and below 1."
        )
    if prob > 0 and num_classes < 2:
        raise ValueError(
            f"{layer.path_text}: label_smoothing_prob is {prob}, but with num_classes = "
            f"{num_classes} there is no other class to give it to. Set it to 0."
        )


def projection_config(layer: base_layer.BaseLayer, feed_forward_tpl: LayerTpl) -> LayerTpl:
    """Config of the projection from the inputs of an output layer to its classes.

    Sizes, initial bias and sharding of `layer` are filled in. `extend_step_out` is copied where
    both the layer and the projection have it.
    """
    config = feed_forward_tpl.clone().set(
        input_dims=layer.input_dims,
        output_dims=layer.num_classes,
        activation_tpl=pax_fiddle.Config(activations.Identity),
        bias_init=layer.bias_init,
        weight_split_dims_mapping=layer.weight_split_dims_mapping.clone(),
    )
    for name in ("out", "extend_step_out"):
        mapping = getattr(layer.activation_split_dims_mapping, name, None)
        if mapping is not None and hasattr(config.activation_split_dims_mapping, name):
            setattr(config.activation_split_dims_mapping, name, mapping)
    return config

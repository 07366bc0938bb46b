"""Softmax output layer that shares its weight with the embedding table, in the style of GShard."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.embedding import labels, lookup, losses
from praxis.layers.embedding.chunks import by_chunks, check_chunk_size, fits_chunks
from praxis.layers.embedding.softmax import check_smoothing
from praxis.layers.sharding import shard_output

NestedMap = py_utils.NestedMap


class GShardTokenStats(NamedTuple):
    """What the loss needs of each position.

    Attributes:
      xent: [...], cross entropy in nats, float32.
      plain_xent: [...], that without label smoothing.
      argmax: [...], the most likely class.
      log_normalizer: [...], logsumexp of the logits, float32.
    """

    xent: Float[Array, "*B"]
    plain_xent: Float[Array, "*B"]
    argmax: Integer[Array, "*B"]
    log_normalizer: Float[Array, "*B"]


class GShardSharedEmbeddingSoftmax(base_layer.BaseLayer):
    """Embedding table with unit Gaussian rows that also gives the logits; no bias.

    Logits are `inputs @ w^T / sqrt(D)`, soft-capped, then clipped. Lepikhin et al., "GShard", 2020,
    arXiv:2006.16668. Shapes: D is `input_dims`, V is `num_classes`.

    Attributes:
      input_dims: D, at least 1. Required.
      num_classes: V, at least 1. Required.
      soft_cap_logits: c of `c * tanh(logits / c)`. 0 or None: no cap.
      logits_abs_max: Bound of the absolute logits. 0 or None: no bound.
      z_loss_weight: Weight of the auxiliary loss `sum(logsumexp(logits)^2) / denominator`.
      label_smoothing_prob: Weight of the uniform distribution over all classes, mixed to the labels
        in training.
      use_tgt_labels_size_as_loss_denominator: Whether averages are taken over all label positions,
        those of weight 0 (padding) included; else over the total weight.
      chunk_size: Positions (tokens) whose logits exist at a time, as in `FullSoftmax`: with it, and
        with labels from `class_ids` only, inputs [B, T, D] and T at least `chunk_size`, the outputs
        `logits` and `log_probs` are None. None: all at once.

    Variables:
      embedding/w: [V, D], initially Gaussian of standard deviation 1, sharded by
        `weight_split_dims_mapping.wt`

    Raises:
      ValueError: during setup, if a size is missing or a probability is out of range; in a call, if
        the inputs or the labels have the wrong shape, or there are no labels.
      TypeError: in a call or a lookup, if ids are not integers.
    """

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          emb_out_split_dims_mapping: Of looked up rows, [B, T, D].
          extend_step_out: Of looked up rows and of logits in decoding, [B, D] and [B, V].
        """

        emb_out_split_dims_mapping: base_layer.SplitDimsMapping = None
        extend_step_out: base_layer.SplitDimsMapping = None

    input_dims: int = 0
    num_classes: int = 0
    soft_cap_logits: float | None = 0.0
    logits_abs_max: float | None = 0.0
    z_loss_weight: float = 0.0
    label_smoothing_prob: float = 0.0
    use_tgt_labels_size_as_loss_denominator: bool = True
    chunk_size: int | None = None

    def setup(self) -> None:
        check_sizes(self, "input_dims", "num_classes")
        check_smoothing(self)
        check_chunk_size(self)
        self.create_child(
            "embedding",
            pax_fiddle.Config(
                linears.Linear,
                input_dims=self.num_classes,
                output_dims=self.input_dims,
                weight_init=base_layer.WeightInit.Gaussian(1.0),
                weight_split_dims_mapping=self.weight_split_dims_mapping.clone(),
            ),
        )

    def emb_lookup(self, ids: Shaped[Array, "*B"]) -> Float[Array, "*B D"]:
        """Looks up the rows of input tokens; an id outside [0, V) gives zeros.

        Args:
          ids: [...], integers.

        Returns:
          [..., D], in `fprop_dtype`.
        """
        lookup.check_ids(self, ids)
        return lookup.shard_rows(self, lookup.gather_or_zero(self.embedding.theta.w, ids))

    def extend_step(
        self, ids: Shaped[Array, "*B"], *, time_step: Shaped[Array, "..."] | int
    ) -> Float[Array, "*B D"]:
        """Looks up the rows of one decoding step; the result does not depend on the step.

        Args:
          ids: [B] or [B, P], integers.
          time_step: [], the number of the step.

        Returns:
          [B, D] or [B, P, D], in `fprop_dtype`.
        """
        del time_step
        return self.emb_lookup(ids)

    def get_logits(
        self,
        inputs: Float[Array, "*B D"],
        input_ids: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "*B V"]:
        """Projects to the classes.

        Args:
          inputs: [..., D].
          input_ids: [...], not read.

        Returns:
          [..., V], in `fprop_dtype`, after the soft cap and the clipping.
        """
        del input_ids
        check_last_axis(self, inputs, "input_dims")
        scaled = inputs * (1 / math.sqrt(self.input_dims))
        logits = jnp.einsum("...d,vd->...v", scaled, self.embedding.theta.w)
        logits = shard_output(self, logits)
        logits = losses.soft_cap(logits, self.soft_cap_logits)
        if self.logits_abs_max:
            logits = jnp.clip(logits, -self.logits_abs_max, self.logits_abs_max)
        return logits

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
          class_ids: [..., 1], integer labels.
          class_probabilities: [..., V], used instead of `class_ids` where both are given.
          input_ids: [...], the tokens that gave the inputs, for `get_logits`.

        Returns:
          A NestedMap of
          - logits: [..., V] and log_probs: [..., V], in the dtype of the inputs; None in chunks
          - per_example_argmax: [...], the most likely class
          - per_example_xent: [...], float32, not weighted
          - total_xent: [], float32, weighted sum of per_example_xent
          - total_weight: [], float32
          - avg_xent_weight: [], float32, the denominator of averages
          - avg_xent: [], float32, `total_xent / avg_xent_weight`
        """
        labels.check_labels(self, inputs, class_weights, class_ids, class_probabilities)
        weights = jnp.broadcast_to(class_weights[..., 0].astype(jnp.float32), inputs.shape[:-1])
        ids = None if class_ids is None else class_ids[..., 0]
        if ids is not None and class_probabilities is None and fits_chunks(inputs, self.chunk_size):
            assert self.chunk_size is not None  # by fits_chunks
            logits, log_probs = None, None
            stats = by_chunks(self, _stats_of_chunk, (inputs, ids, input_ids), self.chunk_size)
        else:
            wide_logits = losses.at_least_float32(self.get_logits(inputs, input_ids))
            stats = self._stats(wide_logits, ids, class_probabilities)
            logits = wide_logits.astype(inputs.dtype)
            log_probs = jax.nn.log_softmax(wide_logits, axis=-1).astype(inputs.dtype)

        total_weight = jnp.sum(weights)
        denominator = (
            jnp.float32(weights.size)
            if self.use_tgt_labels_size_as_loss_denominator
            else total_weight
        )
        if self._smooths:
            self.add_summary(
                "avg_xent_prior_to_label_smoothing",
                jnp.sum(stats.plain_xent * weights) / denominator,
            )
        self._add_z_loss(stats.log_normalizer, weights, denominator)
        total_xent = jnp.sum(stats.xent * weights)
        return NestedMap(
            logits=logits,
            log_probs=log_probs,
            per_example_argmax=stats.argmax,
            per_example_xent=stats.xent,
            total_xent=total_xent,
            avg_xent_weight=denominator,
            avg_xent=total_xent / denominator,
            total_weight=total_weight,
        )

    @property
    def _smooths(self) -> bool:
        return self.label_smoothing_prob > 0 and not self.do_eval

    def _stats(
        self,
        logits: Float[Array, "..."],
        ids: Integer[Array, "..."] | None,
        probs: Shaped[Array, "..."] | None,
    ) -> GShardTokenStats:
        """Losses and prediction of each position.

        Args:
          logits: [..., V], float32.
          ids: [...], read where `probs` is None.
          probs: [..., V] or None.
        """

        def xent_of(smoothing: losses.LabelSmoothing) -> Float[Array, "..."]:
            if probs is not None:
                log_probs = jax.nn.log_softmax(logits, axis=-1)
                targets = smoothing.apply(probs.astype(logits.dtype))
                return losses.distribution_cross_entropy(log_probs, targets)
            assert ids is not None
            return losses.label_cross_entropy(logits, ids, smoothing)

        plain_xent = xent_of(losses.LabelSmoothing())
        xent = plain_xent
        if self._smooths:
            prob = self.label_smoothing_prob
            xent = xent_of(losses.LabelSmoothing.over_all_classes(prob, self.num_classes))
        return GShardTokenStats(
            xent=xent,
            plain_xent=plain_xent,
            argmax=jnp.argmax(logits, axis=-1),
            log_normalizer=jax.nn.logsumexp(logits, axis=-1),
        )

    def _add_z_loss(
        self,
        log_normalizer: Float[Array, "..."],
        weights: Float[Array, "..."],
        denominator: Float[Array, ""],
    ) -> None:
        """Adds the z-loss to summaries and auxiliary losses, as 0 where its weight is 0."""
        z_loss = jnp.float32(0.0)
        if self.z_loss_weight > 0:
            z_loss = self.z_loss_weight * losses.mean_square(log_normalizer, weights, denominator)
        self.add_summary("aux_z_loss", z_loss)
        self.add_aux_loss("aux_z_loss", z_loss)


def _stats_of_chunk(
    layer: GShardSharedEmbeddingSoftmax,
    inputs: Float[Array, "B W D"],
    ids: Integer[Array, "B W"],
    input_ids: Shaped[Array, "B W"] | None,
) -> GShardTokenStats:
    return layer._stats(losses.at_least_float32(layer.get_logits(inputs, input_ids)), ids, None)

"""Losses and predictions of models of tokens, from what is before their softmax."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, py_utils

NestedMap = py_utils.NestedMap
AuxLossStruct = base_layer.AuxLossStruct


def check_labels(layer: base_layer.BaseLayer, labels: NestedMap) -> None:
    """Refuses labels without weights or without classes.

    Raises:
      ValueError: naming the layer and what was given.
    """
    given = sorted(labels.keys())
    if "class_weights" not in labels or not {"class_ids", "class_probabilities"} & set(given):
        raise ValueError(
            f"{layer.path_text}: labels have {given}, expected class_weights [B, T] and "
            "class_ids [B, T] or class_probabilities [B, T, V]."
        )


def predictions(logits: Float[Array, "*B V"]) -> NestedMap:
    """Logits and probabilities, computed in float32, in the dtype of the logits."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return NestedMap(
        logits=logits,
        log_probs=log_probs.astype(logits.dtype),
        probs=jnp.exp(log_probs).astype(logits.dtype),
    )


def token_losses(
    softmax: Any,
    activations: Float[Array, "B T D"],
    labels: NestedMap,
    input_ids: Shaped[Array, "B T"] | None = None,
) -> NestedMap:
    """Cross entropy of labels, by token and by sequence.

    Args:
      softmax: The output layer.
      activations: [B, T, D].
      labels: `class_weights` [B, T], with `class_ids` [B, T] or `class_probabilities` [B, T, V].
      input_ids: [B, T], the tokens that gave the activations.

    Returns:
      What the softmax returns, and `per_token_xent` [B, T], cross entropy times weight in nats,
      `per_sequence_xent` [B], its sum over T, and `total_loss` [], the `avg_xent`.
    """
    class_ids, weights = labels.get("class_ids"), labels.class_weights
    outputs = softmax(
        activations,
        weights[..., jnp.newaxis],
        class_ids=None if class_ids is None else class_ids[..., jnp.newaxis],
        class_probabilities=labels.get("class_probabilities"),
        input_ids=input_ids,
    )
    outputs.per_token_xent = outputs.per_example_xent * weights.astype(jnp.float32)
    outputs.per_sequence_xent = jnp.sum(outputs.per_token_xent, axis=-1)
    outputs.total_loss = outputs.avg_xent
    return outputs


def add_aux_losses(layer: base_layer.BaseLayer, outputs: NestedMap) -> None:
    """Adds the auxiliary losses of a layer and of all below it to its outputs and summaries."""
    outputs.aux_loss, outputs.aux_loss_weight = total_aux_loss(layer)
    layer.add_summary("total_aux_loss", outputs.aux_loss)
    layer.add_summary("total_aux_loss_weight", outputs.aux_loss_weight)
    outputs.total_loss += outputs.aux_loss


def total_aux_loss(layer: base_layer.BaseLayer) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums the auxiliary losses of a layer and of all below it, and their weights."""
    leaves = jax.tree.leaves(
        base_layer.maybe_unbox_value(layer.variables.get(base_layer.AUX_LOSS, {})),
        is_leaf=lambda node: isinstance(node, AuxLossStruct),
    )
    zero = jnp.zeros([], jnp.float32)
    return (
        sum((jnp.sum(leaf.value) for leaf in leaves), zero),
        sum((jnp.sum(leaf.weight) for leaf in leaves), zero),
    )


def mean_entropy(logits: Float[Array, "*B V"]) -> Float[Array, ""]:
    """Entropy of the predictions, in nats, averaged over all positions; float32."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))

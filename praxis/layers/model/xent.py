"""Metrics of a model that predicts classes."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from praxis import py_utils

NestedMap = py_utils.NestedMap


def prediction_weights(
    input_batch: NestedMap, apply_eval_sample_weights: bool
) -> Float[Array, "B T"]:
    """Weight of each token in the loss: `weights`, times those of the examples if asked.

    Raises:
      ValueError: if `eval_sample_weights` are to be applied and are not there.
    """
    if not apply_eval_sample_weights:
        return input_batch.weights
    if "eval_sample_weights" not in input_batch:
        raise ValueError(
            "apply_eval_sample_weights is True, but the batch has no field eval_sample_weights, "
            f"only {sorted(input_batch.keys())}. Let the input give it, [B], or unset it."
        )
    return input_batch.weights * input_batch.eval_sample_weights[:, jnp.newaxis]


def compute_xent_loss_helper(
    predictions: NestedMap,
    input_batch: NestedMap,
    return_predictions: bool,
    apply_eval_sample_weights: bool = False,
    report_strict_acc: bool = False,
) -> tuple[NestedMap, NestedMap]:
    """Collects the loss and the metrics of predictions.

    Args:
      predictions: What `TransformerLm` returns.
      input_batch: `labels` and `weights` [B, T], and maybe `eval_sample_weights` [B].
      return_predictions: Return the predictions for each example, not only labels and scores.
      apply_eval_sample_weights: Multiply the weights by `eval_sample_weights`.
      report_strict_acc: Report the share of examples with no wrong token too.

    Returns:
      Weighted scalars, each (value, weight), float32, where tokens are weighted:
      - total_loss, avg_xent, log_pplx: nats a token
      - aux_loss: weight 1
      - fraction_of_correct_next_step_preds
      - num_predictions: weighted number of tokens; weight 1
      - acc_strict: with `report_strict_acc`, weighted by examples
      and, for each example, `labels` [B, T], `scores` [B] (log-probability of the labels, nats) and
      `eval_sample_weights` [B], or the predictions.

    Raises:
      ValueError: if `eval_sample_weights` are to be applied and are not there.
    """
    weights = prediction_weights(input_batch, apply_eval_sample_weights)
    predicted, labels = predictions.per_example_argmax, input_batch.labels
    correct = jnp.where((labels == predicted) & (weights > 0), weights, 0.0)
    num_preds = predictions.total_weight
    mean_acc = jnp.sum(correct) / jnp.maximum(num_preds, 1)
    xent_weight = predictions.get("avg_xent_weight", num_preds)
    one = jnp.ones([], jnp.float32)
    aux_loss = predictions.get("aux_loss", jnp.zeros([], jnp.float32))
    metrics = NestedMap(
        total_loss=(predictions.total_loss, num_preds),
        avg_xent=(predictions.avg_xent, xent_weight),
        aux_loss=(aux_loss, one),
        log_pplx=(predictions.avg_xent, xent_weight),
        fraction_of_correct_next_step_preds=(mean_acc, num_preds),
        num_predictions=(num_preds, one),
    )
    if report_strict_acc:
        metrics.acc_strict = _strict_accuracy(labels == predicted, weights, input_batch)
    if return_predictions:
        return metrics, predictions
    per_example = NestedMap(labels=labels, scores=-predictions.per_sequence_xent)
    if "eval_sample_weights" in input_batch:
        per_example.eval_sample_weights = input_batch.eval_sample_weights
    return metrics, per_example


def _strict_accuracy(
    right: Bool[Array, "B T"], weights: Shaped[Array, "B T"], input_batch: NestedMap
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Share of the counted examples all of whose weighted tokens are right, and their number."""
    all_right = jnp.all(right | (weights == 0), axis=1)  # [B]
    if "eval_sample_weights" in input_batch:
        counted = input_batch.eval_sample_weights > 0
    else:
        counted = jnp.ones(all_right.shape, jnp.bool)
    number = jnp.sum(counted.astype(jnp.float32))
    return jnp.sum((all_right & counted).astype(jnp.float32)) / jnp.maximum(number, 1), number

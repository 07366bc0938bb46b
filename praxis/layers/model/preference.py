"""Models that learn from preferences: direct preference optimization (DPO)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, base_model, pax_fiddle, py_utils
from praxis.layers.embedding.counter import TokenCounter
from praxis.layers.model.dpo_examples import DPOExample, DPOExampleSeq2Seq
from praxis.layers.model.encoder_decoder import TransformerEncoderDecoder
from praxis.layers.model.sequence import forward, with_label_smoothing
from praxis.layers.model.transformer_lm import LanguageModelType, TransformerLm
from praxis.layers.model.xent import compute_xent_loss_helper

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field
instance_field = base_layer.instance_field

# Log-probabilities of the answers: preferred or not, by the reference or by the model.
PREDICTIONS = ("y_w_ref", "y_w_pi", "y_l_ref", "y_l_pi")


def _example(layer: base_layer.BaseLayer, kind: Any, batch: Any) -> Any:
    """The pair in a flat batch; errors name the layer."""
    try:
        return kind.from_feature_converter(batch)
    except ValueError as error:
        raise ValueError(f"{layer.path_text}: {error}") from None


def add_hist(
    layer: base_layer.BaseLayer, name: str, expression: Shaped[Array, "..."], verbosity: int = 2
) -> None:
    """Adds a summary of the distribution of numbers."""
    layer.add_summary(name, expression, base_layer.SummaryType.HISTOGRAM, verbosity=verbosity)


def sequence_log_p(layer: base_layer.BaseLayer, outputs: NestedMap) -> Float[Array, " B"]:
    """Log-probability of the labels of each row, nats.

    Raises:
      ValueError: if it is not float32, whose differences would mean little.
    """
    xent = outputs.per_sequence_xent
    if xent.dtype != jnp.float32:
        raise ValueError(
            f"{layer.path_text}: per_sequence_xent has dtype {xent.dtype}, expected float32: log-"
            "probabilities of whole answers are subtracted. Let the softmax compute in float32."
        )
    return -xent


def compute_dpo_loss_helper(model: Any, predictions: NestedMap) -> tuple[NestedMap, NestedMap]:
    """The loss of Rafailov et al., "Direct Preference Optimization", 2023, arXiv:2305.18290, eq. 7.

    Args:
      model: Has `beta`, and gets the summaries.
      predictions: `y_w_ref`, `y_w_pi`, `y_l_ref` and `y_l_pi`, each what a model of tokens returns
        with labels; and maybe `eval_sample_weights` [B].

    Returns:
      `total_loss` (nats, number of examples), and an empty map.

    Raises:
      ValueError: if log-probabilities are not float32.
    """
    log_p = {name: sequence_log_p(model, predictions[name]) for name in PREDICTIONS}
    log_p |= {name: lax.stop_gradient(log_p[name]) for name in PREDICTIONS if "ref" in name}
    rewards = {
        "r_hat_y_w": model.beta * (log_p["y_w_pi"] - log_p["y_w_ref"]),
        "r_hat_y_l": model.beta * (log_p["y_l_pi"] - log_p["y_l_ref"]),
    }
    rewards["delta_r_hat"] = rewards["r_hat_y_w"] - rewards["r_hat_y_l"]  # [B]
    delta = rewards["delta_r_hat"]
    weights = predictions.get("eval_sample_weights", jnp.ones_like(delta)).astype(jnp.float32)
    total = jnp.sum(weights)

    def mean(x: Float[Array, " B"]) -> Float[Array, ""]:
        return jnp.sum(x * weights) / jnp.maximum(total, 1.0)

    loss = -mean(jax.nn.log_sigmoid(delta))
    for name, values in log_p.items():
        model.add_summary(f"dpo/{name}_log_p", mean(values))
        add_hist(model, f"dpo/{name}_log_p", values)
    for name, values in rewards.items():
        model.add_summary(f"dpo/{name}", mean(values))
        model.add_summary(f"dpo/{name}_std", jnp.std(values))
        add_hist(model, f"dpo/{name}", values)
    model.add_summary("dpo/dpo_loss", loss)
    model.add_summary("_dpo_topline/p_correct_ranking", mean((delta > 0).astype(jnp.float32)))
    return NestedMap(total_loss=(loss, total)), NestedMap()


def _add_sample_weights(
    model: Any, predictions: NestedMap, input_batch: Any, wanted: bool
) -> NestedMap:
    if not wanted:
        return predictions
    if "eval_sample_weights" not in input_batch:
        raise ValueError(
            f"{model.path_text}: apply_eval_sample_weights is True, but the batch has no field "
            f"eval_sample_weights, only {sorted(input_batch.keys())}. Let the input give it, [B]."
        )
    predictions.eval_sample_weights = input_batch["eval_sample_weights"]
    return predictions


class LanguageModelDPO(base_model.BaseModel):
    """Trains a language model to prefer one answer to another, not far from a reference model.

    A batch is flat, see `DPOExample.from_feature_converter`; rows are not packed.

    Attributes:
      ref_mdl: The reference, which gets no gradients.
      mdl: The model that is trained.
      token_counter: Counts the tokens of both answers, in millions.
      beta: How much the distance to the reference counts.
      model_type: Which keys a token sees.
      apply_eval_sample_weights: Weigh examples by `eval_sample_weights` [B] of the batch.

    Variables:
      ref_mdl, mdl: as in these models
      token_counter/approx_total_tokens_mm: [], not trainable

    Raises:
      ValueError: in calls, if the batch lacks a field.
    """

    ref_mdl: TransformerLm = instance_field(TransformerLm)
    mdl: TransformerLm = instance_field(TransformerLm)
    token_counter: TokenCounter = instance_field(TokenCounter)
    beta: float = 0.1
    model_type: LanguageModelType = LanguageModelType.CAUSAL
    apply_eval_sample_weights: bool = False

    def compute_predictions(self, input_batch: Any) -> NestedMap:
        """Predicts both answers with both models; returns what they return, by `PREDICTIONS`."""
        example = _example(self, DPOExample, input_batch)
        predictions = NestedMap()
        for name, half in (("y_w", example.y_w), ("y_l", example.y_l)):
            self.token_counter(half.inputs, half.paddings)
            half = dataclasses.replace(half, causal_attention_mask=self._visible(half))
            arguments = half.as_xformer_lm_input()
            predictions[f"{name}_ref"] = self.ref_mdl(**arguments)
            predictions[f"{name}_pi"] = self.mdl(**arguments)
        return _add_sample_weights(self, predictions, input_batch, self.apply_eval_sample_weights)

    def _visible(self, half: Any) -> Shaped[Array, "B T"] | None:
        """[B, T], 0 on tokens that all see; None if they are seen by later ones only."""
        if self.model_type == LanguageModelType.CAUSAL:
            return None
        if self.model_type == LanguageModelType.BIDIRECTIONAL:
            return jnp.zeros_like(half.paddings)
        if half.inputs_indicator is None:
            raise ValueError(
                f"{self.path_text}: model_type = {self.model_type.value!r} needs the fields "
                "y_w/inputs_indicator and y_l/inputs_indicator, [B, T], 1 on the prompt."
            )
        return 1 - half.inputs_indicator

    def compute_loss(self, predictions: NestedMap, input_batch: Any) -> tuple[NestedMap, NestedMap]:
        """See `compute_dpo_loss_helper`."""
        del input_batch
        return compute_dpo_loss_helper(self, predictions)


class SequenceModelDPO(base_model.BaseModel):
    """As `LanguageModelDPO`, for an encoder and decoder.

    A batch is flat, see `DPOExampleSeq2Seq.from_feature_converter`; or has `src` and `tgt`, as for
    `SequenceModel`, and then there is no preference: the loss is the cross entropy.

    Attributes:
      model_tpl: Config of the model, and of the reference.
      beta: How much the distance to the reference counts.
      label_smoothing_prob: Filled into the softmax of `model_tpl`, unless it is None.

    Variables:
      model: as in `model_tpl`
      ref_model: as in `model_tpl`; it gets no gradients

    Raises:
      ValueError: in calls, if the batch lacks a field.
    """

    model_tpl: LayerTpl = template_field(TransformerEncoderDecoder)
    label_smoothing_prob: float | None = None
    beta: float = 0.1

    def setup(self) -> None:
        config = with_label_smoothing(self.model_tpl, self.label_smoothing_prob)
        self.create_child("model", config)
        self.create_child("ref_model", config)

    def compute_predictions(self, input_batch: Any) -> NestedMap:
        """Predicts both answers with both models, or the targets if the batch has `src`."""
        if "src" in input_batch:
            return forward(self, self.model, input_batch)
        example = _example(self, DPOExampleSeq2Seq, input_batch)
        predictions = NestedMap()
        for name, half in (("y_w", example.y_w), ("y_l", example.y_l)):
            arguments = half.as_xformer_encdec_input()
            predictions[f"{name}_ref"] = self.ref_model(**arguments)
            predictions[f"{name}_pi"] = self.model(**arguments)
        return predictions

    def compute_loss(self, predictions: NestedMap, input_batch: Any) -> tuple[NestedMap, NestedMap]:
        """See `compute_dpo_loss_helper`, or `compute_xent_loss_helper` if the batch has `src`."""
        if "src" in input_batch:
            return compute_xent_loss_helper(predictions, input_batch.tgt, False)
        return compute_dpo_loss_helper(self, predictions)

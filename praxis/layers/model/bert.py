"""A model that restores hidden tokens."""

from typing import Any

import jax.numpy as jnp

from praxis import base_layer, base_model, pax_fiddle, py_utils
from praxis.layers.augmentation.masked_lm import MaskedLmDataAugmenter
from praxis.layers.model.batch_fields import check_fields
from praxis.layers.model.transformer_lm import LanguageModelType, TransformerLm

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class BertModel(base_model.BaseModel):
    """Predicts tokens that are hidden from a bidirectional language model.

    Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", 2018, arXiv:1810.04805, without its prediction of sentences. A batch has `ids`,
    `labels`, `paddings`, `segment_ids` and `segment_pos`, all [B, T], and may have tokens that are
    hidden already, as `masked_ids`, and 1 where they are to be predicted, as `masked_pos`.

    Attributes:
      lm_tpl: Config of the model of tokens, BIDIRECTIONAL and with `packed_input`.
      label_smoothing_prob: Filled into the softmax of `lm_tpl`, unless it is None.
      mask_token_id: The token that hides others.
      force_mask_generation: Hide tokens here, even if the batch has hidden ones.

    Variables:
      lm: as in `lm_tpl`

    Raises:
      ValueError: during setup, if `lm_tpl` does not fit; in calls, if the batch lacks a field.
    """

    lm_tpl: LayerTpl = template_field(TransformerLm)
    label_smoothing_prob: float | None = None
    mask_token_id: int = 0
    force_mask_generation: bool = False

    def setup(self) -> None:
        lm = self.lm_tpl.clone()
        if lm.model_type != LanguageModelType.BIDIRECTIONAL or not lm.packed_input:
            raise ValueError(
                f"{self.path_text}: lm_tpl has model_type = {lm.model_type.value!r} and "
                f"packed_input = {lm.packed_input}, expected LanguageModelType.BIDIRECTIONAL and "
                "True."
            )
        if self.label_smoothing_prob is not None:
            lm.softmax_tpl.label_smoothing_prob = self.label_smoothing_prob
        self.create_child("lm", lm)
        augmenter = pax_fiddle.Config(
            MaskedLmDataAugmenter, vocab_size=lm.vocab_size, mask_token_id=self.mask_token_id
        )
        self.create_child("mlm_augmenter", augmenter)

    def compute_predictions(self, input_batch: NestedMap) -> NestedMap:
        """Predicts the hidden tokens of a batch.

        Args:
          input_batch: As the class says.

        Returns:
          What `lm` returns, and `augmented_labels` [B, T], the tokens it saw, and `augmented_pos`
          [B, T], 1 where they were to be predicted.
        """
        check_fields(self, input_batch, ("ids", "labels", "paddings", "segment_ids", "segment_pos"))
        if "masked_ids" in input_batch and not self.force_mask_generation:
            check_fields(self, input_batch, ("masked_ids", "masked_pos"))
            hidden, positions = input_batch.masked_ids, input_batch.masked_pos
        else:
            hidden, positions = self.mlm_augmenter(input_batch.ids, input_batch.paddings)
        predictions = self.lm(
            inputs=hidden,
            paddings=input_batch.paddings,
            labels=NestedMap(class_ids=input_batch.labels, class_weights=positions),
            segment_ids=input_batch.segment_ids,
            segment_pos=input_batch.segment_pos,
        )
        predictions.augmented_labels = hidden
        predictions.augmented_pos = positions
        return predictions

    def compute_loss(
        self, predictions: NestedMap, input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Collects the loss and the metrics of predictions.

        Args:
          predictions: From `compute_predictions`.
          input_batch: As the class says.

        Returns:
          Weighted scalars, each (value, weight):
          - total_loss, avg_xent, log_pplx: nats a hidden token
          - aux_loss
          - fraction_of_correct_preds: of hidden tokens
          - num_predictions, num_tokens, num_seqs: hidden tokens, tokens, examples; weight 1
          and, for each example, `per_sequence_xent` [B], `predicted_labels` and `augmented_labels`
          [B, T].
        """
        weights = predictions.augmented_pos.astype(jnp.float32)
        num_preds = predictions.total_weight
        predicted = predictions.per_example_argmax
        correct = jnp.where(predicted == input_batch.labels, weights, 0.0)
        correct_share = jnp.sum(correct) / jnp.maximum(num_preds, 1)
        num_tokens = jnp.sum(1.0 - input_batch.paddings.astype(jnp.float32))
        num_seqs = jnp.sum(jnp.max(input_batch.segment_ids, axis=1)).astype(jnp.float32)
        one = jnp.ones([], jnp.float32)
        aux_loss: Any = predictions.get("aux_loss", jnp.zeros([], jnp.float32))
        metrics = NestedMap(
            total_loss=(predictions.total_loss, num_preds),
            avg_xent=(predictions.avg_xent, num_preds),
            aux_loss=(aux_loss, num_preds),
            log_pplx=(predictions.avg_xent, num_preds),
            fraction_of_correct_preds=(correct_share, num_preds),
            num_predictions=(num_preds, one),
            num_tokens=(num_tokens, one),
            num_seqs=(num_seqs, one),
        )
        per_example = NestedMap(
            per_sequence_xent=predictions.per_sequence_xent,
            predicted_labels=predicted,
            augmented_labels=predictions.augmented_labels,
        )
        return metrics, per_example

"""A model of target sequences given source sequences, as the trainer sees it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from praxis import base_layer, base_model, pax_fiddle, py_utils
from praxis.decoding.options import DecoderHParams, GreedyDecoderHParams
from praxis.layers.model import decoded_text, sequence_generate
from praxis.layers.model.batch_fields import check_fields
from praxis.layers.model.encoder_decoder import TransformerEncoderDecoder
from praxis.layers.model.xent import compute_xent_loss_helper

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


def with_label_smoothing(model_tpl: LayerTpl, prob: float | None) -> LayerTpl:
    """A copy of a config whose softmax smooths labels, unless `prob` is None."""
    config = model_tpl.clone()
    if prob is not None:
        config.softmax_tpl.label_smoothing_prob = prob
    return config


def packed_arguments(layer: Any, input_batch: NestedMap, sides: dict[str, str]) -> dict[str, Any]:
    """Segments of the sides of a batch, if the model takes packed rows.

    Args:
      layer: Has `model_tpl`.
      input_batch: The batch.
      sides: By name of the argument, "input" or "target": the field of the batch.
    """
    if not getattr(layer.model_tpl, "packed_input", False):
        return {}
    arguments = {}
    for argument, side in sides.items():
        check_fields(layer, input_batch[side], ("segment_ids", "segment_pos"), f"{side} part")
        for name in ("segment_ids", "segment_pos", "segment_mask"):
            if name in input_batch[side]:
                arguments[f"{argument}_{name}"] = input_batch[side][name]
    return arguments


def forward(layer: Any, model: Any, input_batch: NestedMap) -> NestedMap:
    """Predicts the labels of the targets of a batch with an encoder and decoder."""
    check_fields(layer, input_batch, ("src", "tgt"))
    src, tgt = input_batch.src, input_batch.tgt
    check_fields(layer, src, ("ids", "paddings"), "src part")
    check_fields(layer, tgt, ("ids", "paddings", "labels", "weights"), "tgt part")
    return model(
        inputs=src.ids,
        input_paddings=src.paddings,
        targets=tgt.ids,
        target_paddings=tgt.paddings,
        labels=NestedMap(class_ids=tgt.labels, class_weights=tgt.weights),
        **packed_arguments(layer, input_batch, {"input": "src", "target": "tgt"}),
    )


class SequenceModel(base_model.BaseModel):
    """Trains an encoder and decoder, and generates targets with it.

    A batch has `src`, with `ids` and `paddings` [B, S], and `tgt`, with `ids`, `labels`,
    `paddings` and `weights` [B, T]; `labels` are the tokens after `ids`, so the input shifts them.
    With `model_tpl.packed_input` both have `segment_ids` and `segment_pos`, and may have
    `segment_mask`.

    Attributes:
      model_tpl: Config of the encoder and decoder.
      return_predictions: Return all predictions for each example, not only labels and scores.
      decoder_tpl: How `decode` generates.
      label_smoothing_prob: Filled into the softmax of `model_tpl`, unless it is None.

    Variables:
      model: as in `model_tpl`

    Raises:
      ValueError: in calls, if the batch lacks a field, or the decoder's settings do not fit.
      NotImplementedError: in `decode`, for settings that are not built.
    """

    model_tpl: LayerTpl = template_field(TransformerEncoderDecoder)
    return_predictions: bool = False
    decoder_tpl: DecoderHParams = base_layer.instance_field(GreedyDecoderHParams)
    label_smoothing_prob: float | None = None

    def setup(self) -> None:
        self.create_child("model", with_label_smoothing(self.model_tpl, self.label_smoothing_prob))

    # ---- training -------------------------------------------------------------------------------

    def compute_predictions(self, input_batch: NestedMap) -> NestedMap:
        """Predicts the labels of a batch; returns what `model` returns for them."""
        return forward(self, self.model, input_batch)

    def compute_loss(
        self, predictions: NestedMap, input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Loss and metrics of the targets, see `compute_xent_loss_helper`."""
        return compute_xent_loss_helper(predictions, input_batch.tgt, self.return_predictions)

    def encode(self, input_batch: NestedMap) -> NestedMap:
        """Embeds the sources; returns `embeddings` [B, S, D]."""
        check_fields(self, input_batch, ("src",))
        check_fields(self, input_batch.src, ("ids", "paddings"), "src part")
        embeddings: Float[Array, "B S D"] = self.model.encode(
            input_batch.src.ids,
            input_batch.src.paddings,
            **packed_arguments(self, input_batch, {"input": "src"}),
        )
        return NestedMap(embeddings=embeddings)

    # ---- generation -----------------------------------------------------------------------------

    def decode(self, input_batch: NestedMap) -> tuple[NestedMap, NestedMap, NestedMap]:
        """Generates as `decoder_tpl` says; see `decode_with_params`."""
        return self.decode_with_params(input_batch, self.decoder_tpl)

    def decode_with_params(
        self, input_batch: NestedMap, decoder_params: DecoderHParams
    ) -> tuple[NestedMap, NestedMap, NestedMap]:
        """Generates a target for each source.

        Args:
          input_batch: `src` and `tgt`; a target starts with its first token. With
            `prefix_lengths` [B] it starts with that many, of at least 1.
          decoder_params: How.

        Returns:
          Metrics: `num_decoded`; the results of the decoder, see `sample_decode`, with the fields
          of the batch; and an empty map.
        """
        if not isinstance(decoder_params, DecoderHParams):
            raise ValueError(
                f"{self.path_text}: decoder_tpl is a {type(decoder_params).__name__}, expected a "
                "DecoderHParams, such as GreedyDecoderHParams or SampleDecoderHParams."
            )
        check_fields(self, input_batch, ("src", "tgt"))
        result = sequence_generate.generate(self, decoder_params, input_batch)
        result.update(input_batch)
        batch_size = jnp.asarray(input_batch.tgt.ids.shape[0], jnp.float32)
        if "eval_sample_weights" in input_batch:
            batch_size = jnp.sum(input_batch.eval_sample_weights)
        metrics = NestedMap(num_decoded=(batch_size, jnp.ones([], jnp.float32)))
        return metrics, result, NestedMap()

    def process_decode_out(
        self, input_obj: Any, decode_out: NestedMap
    ) -> tuple[NestedMap, list[tuple[str, dict[str, Any]]], NestedMap]:
        """Turns the results of `decode` into text, on the host.

        Args:
          input_obj: The input that gave the batch; its `ids_to_strings(ids, lengths, key=...)` is
            used, with key "src" or "tgt".
          decode_out: The results of `decode`, as NumPy arrays.

        Returns:
          Metrics: `decode_length`, the mean length of targets; pairs of the source and what there
          is to know about the example, for examples with nonzero `eval_sample_weights`; and an
          empty map. Sources may repeat.

        Raises:
          ValueError: if the results have the wrong rank.
        """
        mean_length = np.mean(decode_out.decode_lengths).astype(np.float32)
        texts = decoded_text.sequence_examples(input_obj, decode_out, self.path_text)
        return NestedMap(decode_length=(mean_length, np.float32(1.0))), texts, NestedMap()

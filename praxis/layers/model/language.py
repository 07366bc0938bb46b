"""Language model as the trainer sees it: batches in, loss or generated text out."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from praxis import base_layer, base_model, pax_fiddle, py_utils
from praxis.decoding.options import DecoderHParams, GreedyDecoderHParams
from praxis.decoding.stream import NewTokens
from praxis.layers.embedding.counter import TokenCounter
from praxis.layers.model import decoded_text, generate, generate_stream
from praxis.layers.model.batch_fields import check_fields
from praxis.layers.model.transformer_lm import LanguageModelType, TransformerLm
from praxis.layers.model.xent import compute_xent_loss_helper, prediction_weights

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class LanguageModel(base_model.BaseModel):
    """Trains a language model, and generates text with it.

    A batch has `ids`, `labels`, `paddings` and `weights`, all [B, T]; `labels` are the tokens after
    `ids`, so the input shifts them. With `lm_tpl.packed_input` it also has `segment_ids` and
    `segment_pos` [B, T], and may have `segment_mask` [B, 1, T, T]; with `model_type` PREFIX,
    `inputs_indicator` [B, T], 1 on the prefix.

    Attributes:
      lm_tpl: Config of the model of tokens; `model_type` is filled in.
      return_predictions: Return all predictions for each example, not only labels and scores.
      decoder_tpl: How `decode` generates.
      model_type: Which keys a token sees.
      count_tokens: Count the tokens of training, in millions.
      apply_eval_sample_weights: Multiply the weights by `eval_sample_weights` [B] of the batch.
      report_strict_acc: Report the share of examples with no wrong token.

    Variables:
      lm: as in `lm_tpl`
      token_counter/approx_total_tokens_mm: [], with `count_tokens`; not trainable

    Raises:
      ValueError: in calls, if the batch lacks a field, or the decoder's settings do not fit.
      NotImplementedError: in `decode`, for settings that no model decodes with.
    """

    lm_tpl: LayerTpl = template_field(TransformerLm)
    return_predictions: bool = False
    decoder_tpl: DecoderHParams = base_layer.instance_field(GreedyDecoderHParams)
    model_type: LanguageModelType = LanguageModelType.CAUSAL
    count_tokens: bool = False
    apply_eval_sample_weights: bool = False
    report_strict_acc: bool = False

    def setup(self) -> None:
        self.create_child("lm", self.lm_tpl.clone().set(model_type=self.model_type))
        if self.count_tokens:
            self.create_child("token_counter", pax_fiddle.Config(TokenCounter))

    # ---- training -------------------------------------------------------------------------------

    def compute_predictions(self, input_batch: NestedMap) -> NestedMap:
        """Predicts the labels of a batch.

        Args:
          input_batch: As the class says.

        Returns:
          What `lm` returns for these labels.
        """
        check_fields(self, input_batch, ("ids", "paddings", "labels", "weights"))
        if self.count_tokens:
            self.token_counter(input_batch.ids, input_batch.paddings)
        packed = {}
        if getattr(self.lm_tpl, "packed_input", False):
            check_fields(self, input_batch, ("segment_ids", "segment_pos"))
            packed = {
                name: input_batch[name]
                for name in ("segment_ids", "segment_pos", "segment_mask")
                if name in input_batch
            }
        weights = prediction_weights(input_batch, self.apply_eval_sample_weights)
        return self.lm(
            inputs=input_batch.ids,
            paddings=input_batch.paddings,
            labels=NestedMap(class_ids=input_batch.labels, class_weights=weights),
            causal_attention_mask=self.causal_attention_mask(input_batch),
            **packed,
        )

    def causal_attention_mask(self, input_batch: NestedMap) -> Any:
        """[B, T], 0 where all tokens see the token; None if they only see earlier ones."""
        if self.model_type == LanguageModelType.CAUSAL:
            return None
        if self.model_type == LanguageModelType.BIDIRECTIONAL:
            return jnp.zeros_like(input_batch.paddings)
        check_fields(self, input_batch, ("inputs_indicator",))
        return 1 - input_batch.inputs_indicator

    def compute_loss(
        self, predictions: NestedMap, input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Loss and metrics of predictions, see `compute_xent_loss_helper`."""
        return compute_xent_loss_helper(
            predictions,
            input_batch,
            self.return_predictions,
            self.apply_eval_sample_weights,
            self.report_strict_acc,
        )

    # ---- generation -----------------------------------------------------------------------------

    def decode(
        self,
        input_batch: NestedMap,
        result_callback: Any = None,
        return_result_for_suffix_score: bool = False,
    ) -> tuple[NestedMap, NestedMap, NestedMap]:
        """Generates as `decoder_tpl` says; see `decode_with_params`."""
        if not isinstance(self.decoder_tpl, DecoderHParams):
            raise ValueError(
                f"{self.path_text}: decoder_tpl is a {type(self.decoder_tpl).__name__}, expected a "
                "DecoderHParams, such as GreedyDecoderHParams or SampleDecoderHParams."
            )
        return self.decode_with_params(
            self.decoder_tpl, input_batch, result_callback, return_result_for_suffix_score
        )

    def decode_with_params(
        self,
        decoder_params: DecoderHParams,
        input_batch: NestedMap,
        result_callback: Any = None,
        return_result_for_suffix_score: bool = False,
    ) -> tuple[NestedMap, NestedMap, NestedMap]:
        """Generates a continuation of each prefix.

        Args:
          decoder_params: How.
          input_batch: `ids` and `paddings` [B, P], and for PREFIX models `inputs_indicator`. The
            prefix of a row is its first `prefix_lengths` [B] tokens, if the batch has them; or the
            tokens of the indicator; or those that are not padding. Settings for each example or
            sample are optional fields, see `generate.BatchSettings`.
          result_callback: A StreamingResultCallback, for samples.
          return_result_for_suffix_score: Return the last state of the loop instead.

        Returns:
          Metrics: `num_decoded`; the results of the decoder, see `sample_decode`, with the fields
          of the batch; and an empty map.
        """
        if return_result_for_suffix_score or result_callback is not None:
            extra = {
                "result_callback": result_callback,
                "return_result_for_suffix_score": return_result_for_suffix_score,
            }
        else:
            extra = {}
        check_fields(self, input_batch, ("ids", "paddings"))
        result = generate.generate(
            self,
            decoder_params,
            input_batch,
            causal_attention_mask=self.causal_attention_mask(input_batch),
            **extra,
        )
        result.update(input_batch)
        if "eval_sample_weights" in input_batch:
            num_decoded = jnp.sum(input_batch.eval_sample_weights)
        else:
            num_decoded = jnp.asarray(input_batch.ids.shape[0], jnp.float32)
        metrics = NestedMap(num_decoded=(num_decoded, jnp.ones([], jnp.float32)))
        return metrics, result, NestedMap()

    @nn.nowrap
    def stream(
        self,
        variables: Any,
        input_batch: NestedMap,
        *,
        prng_key: jax.Array | None = None,
        decoder_params: DecoderHParams | None = None,
        stop_sequences: Sequence[Sequence[int]] = (),
    ) -> Iterator[NewTokens]:
        """Generates as `decode` does, token by token, on a layer outside `apply`.

        The first call with a layer compiles a function for the prompts and one for a step. Later
        calls use them again, for requests that are not much longer.

        Args:
          variables: The variables of this layer.
          input_batch: As for `decode_with_params`.
          prng_key: For drawing: with the key that `decode` gets as stream `random`, the tokens are
            the same. None: a fixed one.
          decoder_params: How; None: `decoder_tpl`. Greedy, or one sample, with max_decode_steps.
          stop_sequences: Sequences of tokens, each of which ends a text.

        Yields:
          `ids`, `logprobs` and `done` of each step, [B], on the host.

        Raises:
          ValueError: if the settings do not fit.
        """
        options = self.decoder_tpl if decoder_params is None else decoder_params
        check_fields(self, input_batch, ("ids", "paddings"))
        return generate_stream.stream(
            self, variables, options, input_batch, prng_key, stop_sequences
        )

    def _prepare_guidance_decode_data(self, input_batch: NestedMap) -> NestedMap:
        """Makes a batch of pairs for classifier-free guidance; subclasses implement it.

        Args:
          input_batch: The batch of B rows.

        Returns:
          A batch of 2 B rows: each row, with the condition, and then the same without it.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(
            f"{self.path_text}: cf_guidance_scale needs rows without the condition: override "
            "_prepare_guidance_decode_data(input_batch), which returns the batch with each row "
            "followed by the same row without the condition."
        )

    def process_decode_out(
        self, input_obj: Any, decode_out: NestedMap
    ) -> tuple[NestedMap, list[tuple[str, dict[str, Any]]], NestedMap]:
        """Turns the results of `decode` into text, on the host.

        Args:
          input_obj: The input that gave the batch; its `ids_to_strings` is used.
          decode_out: The results of `decode`, as NumPy arrays.

        Returns:
          Metrics: `decoded_length`, the mean length of prefix and continuation; pairs of the prefix
          and what there is to know about the example, for examples with nonzero
          `eval_sample_weights`; and an empty map. Prefixes may repeat.

        Raises:
          ValueError: if the results have the wrong rank.
        """
        mean_length = np.mean(decode_out.decode_lengths).astype(np.float32)
        texts = decoded_text.examples(input_obj, decode_out, self.path_text)
        return NestedMap(decoded_length=(mean_length, np.float32(1.0))), texts, NestedMap()

"""A language model of transformer layers: embedding, stack, normalization, softmax."""

import enum
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import normalizations
from praxis.layers.attention.mask_spec import AttentionMask
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.position import PositionalEmbedding
from praxis.layers.embedding.shared import SharedEmbeddingSoftmax
from praxis.layers.model import lm_loss, lm_sharding, ngram_state
from praxis.layers.model.sharded_lm import ShardedLm
from praxis.layers.transformer.stack import StackedTransformer

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
NestedMap = py_utils.NestedMap


class LanguageModelType(str, enum.Enum):  # noqa: UP042 (public base classes)
    """Which keys a token sees."""

    CAUSAL = "causal"
    PREFIX = "prefix"
    BIDIRECTIONAL = "bidirectional"


class TransformerLm(ShardedLm):
    """Predicts tokens with a stack of transformer layers.

    In training a call gives the loss. In decoding a call over the prompt fills the caches, and
    `extend_step` adds a token. Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
    Shapes: D is `model_dims`, V is `vocab_size`.

    Attributes:
      model_dims: D, at least 1. Required.
      vocab_size: V, at least 1. Required.
      position_emb_tpl: Config of what is added to the embeddings by position; D is filled in. None
        for models whose attention knows positions.
      stacked_transformer_tpl: Config of the stack. In it (or in the stack that it repeats) D,
        `packed_input`, `mask_self_attention` and `fold_padding_with_segment_mask` are filled in.
      token_type_emb_tpl: Config of what is added to the embeddings by type of token, e.g. first or
        second sentence; D is filled in. None: there are no types.
      embedding_ln_tpl: Config of the normalization of the sum of embeddings; D is filled in. None
        for none.
      head_tpl: Config of a layer between the stack and the last normalization, e.g. a
        `FeedForward`; D is filled in as its width of inputs and outputs. None for none.
      final_ln_tpl: Config of the normalization after the stack; D is filled in.
      softmax_tpl: Config of the output layer; D and V are filled in.
      separate_embedding_tpl: Config of the table of input tokens; D and V are filled in. None takes
        the weights of the softmax.
      model_type: CAUSAL: a token sees itself and what is before it. PREFIX: and all of its prefix.
        BIDIRECTIONAL: a token sees all tokens.
      packed_input: Whether rows hold several examples.
      skip_compute_loss: Return the activations after the last normalization, not the loss.
      skip_aux_loss: Leave the auxiliary losses of layers out of the outputs and the total.
      entropy_loss_weight: Weight, in the total loss, of minus the entropy of the predictions
        (nats, mean over all positions). None: no such loss.
      record_activations_in_xent_output: Return `activations` [B, T, D] too.
      record_logits_in_xent_output: Return `logits` [B, T, V] even where the softmax gives none.
      ngrammer_tpl: Config of what adds n-grams to the embeddings of tokens, e.g. `VQNgrammer`; None
        for none.
      post_attention_ngrammer_tpls: One config for each layer of the stack, or None for it, of what
        adds n-grams to the outputs of its self-attention.

    Variables:
      embedding_lookup, ngrammer, position_emb, token_type_emb, embedding_ln, transformer, head,
        final_ln, softmax: as in these layers

    Decode states:
      time_step: [], where the next token goes in the caches
      ngrammer_prefix, ngrammer_prefix_emb, ngrammer_prefix_segment_pos: [B, 1, ...], the last one,
        see `ngram_state`; with `ngrammer_tpl`

    Raises:
      ValueError: during setup, if a size or a layer's n-grammer is missing; in calls, if inputs do
        not go together.
    """

    position_emb_tpl: LayerTpl | None = template_field(PositionalEmbedding)
    model_dims: int = 0
    stacked_transformer_tpl: LayerTpl = template_field(StackedTransformer)
    softmax_tpl: LayerTpl = template_field(SharedEmbeddingSoftmax)
    vocab_size: int = 0
    packed_input: bool = False
    model_type: LanguageModelType = LanguageModelType.CAUSAL
    ngrammer_tpl: LayerTpl | None = template_field(None)
    post_attention_ngrammer_tpls: Sequence[LayerTpl | None] | None = template_field(None)
    separate_embedding_tpl: LayerTpl | None = template_field(None)
    final_ln_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    skip_compute_loss: bool = False
    skip_aux_loss: bool = False
    record_activations_in_xent_output: bool = False
    record_logits_in_xent_output: bool = False
    entropy_loss_weight: float | None = None
    token_type_emb_tpl: LayerTpl | None = template_field(None)
    embedding_ln_tpl: LayerTpl | None = template_field(None)
    head_tpl: LayerTpl | None = template_field(None)

    def setup(self) -> None:
        check_sizes(self, "model_dims", "vocab_size")
        if self.position_emb_tpl is not None:
            position_emb = self.position_emb_tpl.clone().set(embedding_dims=self.model_dims)
            self.create_child("position_emb", position_emb)
        if self.separate_embedding_tpl is not None:
            self.create_child("embedding_lookup", self._with_sizes(self.separate_embedding_tpl))
        if self.ngrammer_tpl is not None:
            self.create_child("ngrammer", self.ngrammer_tpl)
        if self.token_type_emb_tpl is not None:
            types = self.token_type_emb_tpl.clone().set(input_dims=self.model_dims)
            self.create_child("token_type_emb", types)
        if self.embedding_ln_tpl is not None:
            norm = self.embedding_ln_tpl.clone().set(dim=self.model_dims)
            self.create_child("embedding_ln", norm)
        self.create_child("transformer", self._stack_config())
        if self.head_tpl is not None:
            widths = {"input_dims": self.model_dims, "output_dims": self.model_dims}
            self.create_child("head", self.head_tpl.clone().set(**widths))
        self.create_child("final_ln", self.final_ln_tpl.clone().set(dim=self.model_dims))
        self.create_child("softmax", self._with_sizes(self.softmax_tpl))

    def _with_sizes(self, template: LayerTpl) -> LayerTpl:
        """Fills D and V into the config of an embedding or a softmax that has fields for them."""
        config = template.clone()
        for field, size in (("input_dims", self.model_dims), ("num_classes", self.vocab_size)):
            if hasattr(config, field):
                setattr(config, field, size)
        return config

    def _stack_config(self) -> LayerTpl:
        """The config of the stack, with what this model decides filled in."""
        config = self.stacked_transformer_tpl.clone()
        stack = lm_sharding.inner_stack(config)
        stack.set(
            model_dims=self.model_dims,
            packed_input=self.packed_input,
            fold_padding_with_segment_mask=True,
            mask_self_attention=self.model_type == LanguageModelType.CAUSAL,
        )
        ngram_state.set_in_layers(self, "post_attention_ngrammer_tpls", stack)
        return config

    # ---- whole sequences ------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Int[Array, "B T"],
        paddings: Shaped[Array, "B T"],
        labels: NestedMap | None = None,
        segment_ids: Integer[Array, "B T"] | None = None,
        segment_pos: Integer[Array, "B T"] | None = None,
        causal_attention_mask: Shaped[Array, "B T"] | None = None,
        segment_mask: AttentionMask | Shaped[Array, "B 1 T T"] | None = None,
        start_time_step: int | Int[Array, ""] = 0,
        token_type_ids: Integer[Array, "B T"] | None = None,
        **input_kwargs: Any,
    ) -> NestedMap | Float[Array, "B T D"]:
        """Predicts each label, given the inputs up to its position; fills the caches if asked.

        Args:
          inputs: [B, T], tokens.
          paddings: [B, T], 1 marks padding.
          labels: `class_weights` [B, T], weight of each prediction, with `class_ids` [B, T] or
            `class_probabilities` [B, T, V]. None: there is no loss.
          segment_ids: [B, T], of packed examples, 0 in the padding. None: each row is one example.
          segment_pos: [B, T], position of each token in its example. None: position in the row.
          causal_attention_mask: [B, T], 0 marks the prefix, which all tokens see, for PREFIX.
          segment_mask: [B, 1, T, T], added to the attention logits, in place of the mask that is
            made of `segment_ids` and `causal_attention_mask`.
          start_time_step: Where the first `extend_step` after this call goes in the caches.
          token_type_ids: [B, T], with `token_type_emb_tpl`. None: all tokens are of type 0.
          **input_kwargs: For subclasses that have further inputs; this class has none.

        Returns:
          As `compute_loss`; the activations [B, T, D] with `skip_compute_loss`.
        """
        self._check_inputs(segment_ids, segment_pos, token_type_ids, input_kwargs)
        weights = 1.0 - paddings.astype(jnp.float32)
        self.add_summary("num_unpadded_tokens", lambda: jnp.sum(weights))
        self.add_summary("ratio_unpadded_tokens", lambda: jnp.mean(weights))
        self.update_decode_state("time_step", jnp.asarray(start_time_step, jnp.int32))

        if segment_ids is None:
            segment_ids = (paddings == 0).astype(jnp.int32)
            segment_pos = jnp.broadcast_to(
                jnp.arange(inputs.shape[1], dtype=jnp.int32)[jnp.newaxis], inputs.shape
            )
        x = self._token_table.emb_lookup(inputs)
        if self.ngrammer_tpl is not None:
            ngram_state.store(self, inputs, x, segment_pos, start_time_step)
            x = ngram_state.embed_sequence(
                self.ngrammer, self._token_table, inputs, x, paddings, segment_pos
            )
        x = self._embed_places(x, segment_pos, inputs.shape[1], token_type_ids)
        if segment_mask is None:
            segment_mask = self._segment_mask(segment_ids, causal_attention_mask)
            if not getattr(self.transformer, "takes_lazy_masks", False):
                segment_mask = segment_mask.materialise(x.dtype)
        x = self.transformer(x, paddings, segment_mask=segment_mask, segment_pos=segment_pos)
        activations = self._finish(x)
        if self.skip_compute_loss:
            return activations
        return self.compute_loss(activations, labels, inputs)

    def _check_inputs(
        self,
        segment_ids: Any,
        segment_pos: Any,
        token_type_ids: Any,
        input_kwargs: dict[str, Any],
    ) -> None:
        if token_type_ids is not None and self.token_type_emb_tpl is None:
            raise ValueError(
                f"{self.path_text}: token_type_ids are given, but token_type_emb_tpl is None. Set "
                "it, e.g. to a config of embedding_softmax.Embedding with num_classes = 2."
            )
        if segment_ids is None and segment_pos is not None:
            raise ValueError(
                f"{self.path_text}: segment_pos is given without segment_ids. Pass both, or "
                "neither for rows of one example each."
            )
        if input_kwargs:
            raise TypeError(
                f"{self.path_text}: unexpected inputs {sorted(input_kwargs)}. A subclass whose "
                "__call__ takes them could use them."
            )

    @property
    def _token_table(self) -> Any:
        """The layer that embeds tokens."""
        return self.softmax if self.separate_embedding_tpl is None else self.embedding_lookup

    def _embed_places(
        self,
        x: Float[Array, "B T D"],
        positions: Integer[Array, "B T"] | None,
        seq_length: int,
        token_type_ids: Integer[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Adds what stands for positions below `seq_length` and for types, and normalises."""
        if self.position_emb_tpl is not None:
            x += self.position_emb(seq_length=seq_length, position=positions)
        if self.token_type_emb_tpl is not None:
            if token_type_ids is None:
                token_type_ids = jnp.zeros(x.shape[:2], jnp.int32)
            x += self.token_type_emb.emb_lookup(token_type_ids)
        return x if self.embedding_ln_tpl is None else self.embedding_ln(x)

    def _finish(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """What lies between the stack and the softmax."""
        return self.final_ln(x if self.head_tpl is None else self.head(x))

    def _segment_mask(
        self,
        segment_ids: Integer[Array, "B T"],
        causal_attention_mask: Shaped[Array, "B T"] | None,
    ) -> AttentionMask:
        is_causal = self.model_type != LanguageModelType.BIDIRECTIONAL
        has_prefix = is_causal and causal_attention_mask is not None
        return AttentionMask(
            target_len=segment_ids.shape[1],
            source_len=segment_ids.shape[1],
            causal=is_causal,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            visible_keys=causal_attention_mask == 0 if has_prefix else None,
        )

    # ---- losses ---------------------------------------------------------------------------------

    def compute_loss(
        self,
        activations: Float[Array, "B T D"],
        labels: NestedMap | None = None,
        input_ids: Int[Array, "B T"] | None = None,
    ) -> NestedMap:
        """Computes the loss, or without labels the predictions.

        Args:
          activations: [B, T, D].
          labels: As in `__call__`.
          input_ids: [B, T], the tokens that gave the activations, for the softmax.

        Returns:
          Without labels, `logits`, `log_probs` and `probs`, all [B, T, V]. With labels, what the
          softmax returns and
          - per_token_xent: [B, T], cross entropy times weight, nats
          - per_sequence_xent: [B], its sum over T
          - total_loss: [], `avg_xent` and all other losses
          - aux_loss, aux_loss_weight: [], sums over the layers; not with `skip_aux_loss`
          - avg_entropy_loss: [], with `entropy_loss_weight`
          - activations: [B, T, D], with `record_activations_in_xent_output`

        Raises:
          ValueError: if the labels lack an entry.
        """
        if labels is None:
            return lm_loss.predictions(self.softmax.get_logits(activations, input_ids))
        lm_loss.check_labels(self, labels)
        outputs = lm_loss.token_losses(self.softmax, activations, labels, input_ids)
        if self.record_logits_in_xent_output and outputs.logits is None:
            outputs.logits = self.softmax.get_logits(activations, input_ids)
        if self.record_activations_in_xent_output:
            outputs.activations = activations
        if self.entropy_loss_weight is not None:
            logits = outputs.logits
            if logits is None:
                logits = self.softmax.get_logits(activations, input_ids)
            outputs.avg_entropy_loss = -lm_loss.mean_entropy(logits)
            outputs.total_loss += self.entropy_loss_weight * outputs.avg_entropy_loss
        if not self.skip_aux_loss:
            lm_loss.add_aux_losses(self, outputs)
        return outputs

    # ---- decoding -------------------------------------------------------------------------------

    def init_states(self, *args: Any, **kwargs: Any) -> None:
        """Caches are made by a call over the prompt; this always raises."""
        self.transformer.init_states(*args, **kwargs)

    def extend_step(
        self,
        inputs: Int[Array, "*B"],
        segment_pos: Integer[Array, "*B"] | None = None,
        atten_mask: Shaped[Array, "..."] | None = None,
    ) -> NestedMap:
        """Adds a token, or a block of L tokens, to the caches, and predicts what follows it.

        Args:
          inputs: [B] or [B, L], tokens. A block needs an attention that takes blocks.
          segment_pos: [B] or [B, L], position of each token in its example. The token then sees its
            example only, which is contiguous in the caches. None: the number of the step, and it
            sees all earlier tokens.
          atten_mask: [B, 1, S] or [B, 1, L, S] over the caches, in place of that; it is added to
            the attention logits.

        Returns:
          `logits`, `log_probs` and `probs`, [B, V] or [B, L, V]; and `activations` with
          `record_activations_in_xent_output`.

        Raises:
          ValueError: for a BIDIRECTIONAL model, or without a call over a prompt before.
        """
        if self.model_type == LanguageModelType.BIDIRECTIONAL:
            raise ValueError(
                f"{self.path_text}: extend_step adds tokens at the end, but with model_type = "
                f"{self.model_type.value!r} earlier tokens would see them."
            )
        time_step = self.get_decode_state("time_step")
        block = inputs if inputs.ndim == 2 else inputs[:, jnp.newaxis]  # [B, L]
        block_len = block.shape[1]
        positions = segment_pos
        if positions is None:
            positions = (time_step + jnp.arange(block_len, dtype=jnp.int32))[jnp.newaxis]
            positions = jnp.broadcast_to(positions, block.shape)
        positions = positions.reshape(block.shape)
        x = self._token_table.emb_lookup(block)
        if self.ngrammer_tpl is not None:
            x = ngram_state.extend(self, self.ngrammer, block, x, positions)
        x = self._embed_places(x, positions, self._longest_length(block_len))
        x = self.transformer.extend_step(
            x if inputs.ndim == 2 else x[:, 0],
            time_step=time_step,
            segment_pos=segment_pos,
            atten_mask=atten_mask,
        )
        self.update_decode_state("time_step", time_step + block_len)
        activations = self._finish(x)
        outputs = lm_loss.predictions(self.softmax.get_logits(activations, inputs))
        if self.record_activations_in_xent_output:
            outputs.activations = activations
        return outputs

    def _longest_length(self, default: int) -> int:
        """The number of positions that a learned table knows, whatever the length of the caches."""
        if self.position_emb_tpl is None:
            return default
        return getattr(self.position_emb, "max_seq_length", default)

    def transform_decode_state(self, transform_fn: base_layer.DecodeStateTransformFn) -> None:
        """Replaces each array of the caches by `transform_fn(array, batch_dim, time_dim)`."""
        if self.ngrammer_tpl is not None:
            ngram_state.transform(self, transform_fn)
        self.transformer.transform_decode_state(transform_fn)

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Keeps the caches as prefixes that samples share, and starts new ones for suffixes."""
        if self.ngrammer_tpl is not None:
            ngram_state.repeat(self, num_suffix_samples)
        self.transformer.lazy_broadcast_prefix(num_suffix_samples, suffix_length)

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: base_layer.DecodeStateTransformFn
    ) -> None:
        """Joins shared prefixes with the caches, and aligns the results."""
        self.transformer.right_align_decode_state_with_prefix(max_prefix_size, right_align_fn)

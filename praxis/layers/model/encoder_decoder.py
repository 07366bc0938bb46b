"""A model that writes one sequence of tokens for another: encoder, decoder, softmax."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import normalizations
from praxis.layers.attention import masks
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.position import PositionalEmbedding
from praxis.layers.embedding.shared import SharedEmbeddingSoftmax
from praxis.layers.model import lm_loss, lm_sharding, ngram_state

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
NestedMap = py_utils.NestedMap

SIDES = ("encoder", "decoder")


class TransformerEncoderDecoder(base_layer.BaseLayer):
    """Predicts the tokens of a target, given those of an input.

    Both are embedded and go through stacks of transformer layers. The decoder sees the outputs of
    the encoder if its config has `use_cross_attention`. In decoding a call over the input and the
    first target tokens fills the caches, and `extend_step` adds a target token. Vaswani et al.,
    "Attention Is All You Need", 2017, arXiv:1706.03762. Shapes: D is `model_dims`, V the number of
    classes of the softmax, S the length of inputs, T that of targets.

    Attributes:
      model_dims: D, at least 1. Required.
      packed_input: Whether rows hold several examples.
      position_emb_tpl: Config of what is added to embeddings by position, on both sides; D is
        filled in. None: the two below, or nothing.
      encoder_position_emb_tpl: Likewise, for the encoder only; `position_emb_tpl` has to be None.
      decoder_position_emb_tpl: Likewise, for the decoder only.
      encoder_stacked_transformer_tpl: Config of the stack, required. In it (or in the stack that it
        repeats) D and `packed_input` are filled in, and its attentions keep no cache.
      decoder_stacked_transformer_tpl: Likewise; with `mask_self_attention`. Its attentions do keep
        caches.
      encoder_embedding_tpl: Config of the table of input tokens; None takes that of the decoder.
      decoder_embedding_tpl: Config of the table of target tokens; None takes the softmax.
      encoder_ngrammer_tpl: Config of what adds n-grams to embeddings of inputs; None for none.
      decoder_ngrammer_tpl: Likewise, of targets.
      encoder_post_attention_ngrammer_tpls: One config, or None, for each layer of the encoder.
      decoder_post_attention_ngrammer_tpls: Likewise, of the decoder.
      encoder_ln_tpl: Config of the normalization after the encoder; D is filled in. None for none.
      decoder_ln_tpl: Likewise, after the decoder.
      softmax_tpl: Config of the output layer, with `num_classes`; D is filled in.

    Variables:
      encoder_embedding_lookup, decoder_embedding_lookup, encoder_ngrammer, decoder_ngrammer,
      position_emb, encoder_position_emb, decoder_position_emb, encoder, decoder, encoder_ln,
      decoder_ln, softmax: as in these layers

    Decode states:
      time_step: [], where the next token goes in the caches
      input_paddings: [B, S], of what cross-attention attends to
      ngrammer_prefix and others: see `ngram_state`; with `decoder_ngrammer_tpl`

    Raises:
      ValueError: during setup, if a config is missing or does not fit; in calls, if inputs do not
        go together.
    """

    position_emb_tpl: LayerTpl | None = template_field(PositionalEmbedding)
    encoder_position_emb_tpl: LayerTpl | None = template_field(None)
    encoder_stacked_transformer_tpl: LayerTpl | None = template_field(None)
    encoder_ngrammer_tpl: LayerTpl | None = template_field(None)
    encoder_post_attention_ngrammer_tpls: Sequence[LayerTpl | None] | None = template_field(None)
    encoder_embedding_tpl: LayerTpl | None = template_field(None)
    encoder_ln_tpl: LayerTpl | None = template_field(normalizations.LayerNorm)
    decoder_position_emb_tpl: LayerTpl | None = template_field(None)
    decoder_stacked_transformer_tpl: LayerTpl | None = template_field(None)
    decoder_ngrammer_tpl: LayerTpl | None = template_field(None)
    decoder_post_attention_ngrammer_tpls: Sequence[LayerTpl | None] | None = template_field(None)
    decoder_embedding_tpl: LayerTpl | None = template_field(None)
    decoder_ln_tpl: LayerTpl | None = template_field(normalizations.LayerNorm)
    model_dims: int = 0
    softmax_tpl: LayerTpl = template_field(SharedEmbeddingSoftmax)
    packed_input: bool = False

    # ---- setup ----------------------------------------------------------------------------------

    def setup(self) -> None:
        check_sizes(self, "model_dims")
        self._create_position_embs()
        for side in SIDES:
            self._create_with_dims(f"{side}_embedding_lookup", f"{side}_embedding_tpl")
            if getattr(self, f"{side}_ngrammer_tpl") is not None:
                self.create_child(f"{side}_ngrammer", getattr(self, f"{side}_ngrammer_tpl"))
            self.create_child(side, self._stack_config(side))
            norm = getattr(self, f"{side}_ln_tpl")
            if norm is not None:
                self.create_child(f"{side}_ln", norm.clone().set(dim=self.model_dims))
        self._create_with_dims("softmax", "softmax_tpl")

    def _create_position_embs(self) -> None:
        for side in ("", "encoder_", "decoder_"):
            template = getattr(self, f"{side}position_emb_tpl")
            if template is None:
                continue
            if side and self.position_emb_tpl is not None:
                raise ValueError(
                    f"{self.path_text}: both position_emb_tpl and {side}position_emb_tpl are set, "
                    "but the first is for encoder and decoder. Set one of them to None."
                )
            config = template.clone().set(embedding_dims=self.model_dims)
            self.create_child(f"{side}position_emb", config)

    def _create_with_dims(self, name: str, field: str) -> None:
        """Creates an embedding table or a softmax, with D filled in, unless its field is None."""
        template = getattr(self, field)
        if template is None:
            return
        config = template.clone()
        if hasattr(config, "input_dims"):
            config.input_dims = self.model_dims
        self.create_child(name, config)

    def _stack_config(self, side: str) -> LayerTpl:
        """The config of one stack, with what this model decides filled in."""
        field = f"{side}_stacked_transformer_tpl"
        template = getattr(self, field)
        if template is None:
            raise ValueError(
                f"{self.path_text}: {field} is None. Set it to the config of a stack, e.g. a "
                "StackedTransformer."
            )
        config = template.clone()
        stack = lm_sharding.inner_stack(config)
        if side == "encoder":
            self._validate_encoder_stack(stack)
        else:
            self._validate_decoder_stack(stack)
        stack.set(model_dims=self.model_dims, packed_input=self.packed_input)
        ngram_state.set_in_layers(self, f"{side}_post_attention_ngrammer_tpls", stack)
        if side == "encoder":
            _keep_no_caches(stack)
        return config

    def _validate_encoder_stack(self, stack: LayerTpl) -> None:
        """Refuses an encoder whose tokens do not see all others; a subclass may allow it."""
        if stack.mask_self_attention:
            raise ValueError(
                f"{self.path_text}: mask_self_attention = True in "
                "encoder_stacked_transformer_tpl, but all tokens of the input are known. Set it "
                "to False."
            )

    def _validate_decoder_stack(self, stack: LayerTpl) -> None:
        """Refuses a decoder whose tokens see later ones; a subclass may allow it."""
        if not stack.mask_self_attention:
            raise ValueError(
                f"{self.path_text}: mask_self_attention = False in "
                "decoder_stacked_transformer_tpl, but tokens of the target must not see later "
                "ones, which they are to predict. Set it to True."
            )

    # ---- embeddings -----------------------------------------------------------------------------

    def _table(self, side: str) -> Any:
        """The layer that embeds the tokens of a side."""
        if side == "encoder" and self.encoder_embedding_tpl is not None:
            return self.encoder_embedding_lookup
        if self.decoder_embedding_tpl is not None:
            return self.decoder_embedding_lookup
        return self.softmax

    def _add_positions(
        self, side: str, x: Float[Array, "B T D"], positions: Shaped[Array, "B T"], in_step: bool
    ) -> Float[Array, "B T D"]:
        """Adds what stands for positions; `in_step` if they may be beyond T."""
        name = "position_emb" if self.position_emb_tpl is not None else f"{side}_position_emb"
        if getattr(self, f"{name}_tpl") is None:
            return x
        layer = getattr(self, name)
        length = x.shape[1]
        if in_step:
            length = getattr(layer, "max_seq_length", length)
        return x + layer(seq_length=length, position=positions)

    def _embed(
        self,
        side: str,
        tokens: Int[Array, "B T"],
        paddings: Shaped[Array, "B T"],
        positions: Integer[Array, "B T"],
        next_step: int | Int[Array, ""] | None = None,
    ) -> Float[Array, "B T D"]:
        """Embeddings of whole sequences; with `next_step`, what decoding needs is kept."""
        x = self._table(side).emb_lookup(tokens)
        if getattr(self, f"{side}_ngrammer_tpl") is not None:
            if next_step is not None:
                ngram_state.store(self, tokens, x, positions, next_step)
            x = ngram_state.embed_sequence(
                getattr(self, f"{side}_ngrammer"), self._table(side), tokens, x, paddings, positions
            )
        return self._add_positions(side, x, positions, in_step=False)

    def _segments(
        self,
        side: str,
        paddings: Shaped[Array, "B T"],
        segment_ids: Integer[Array, "B T"] | None,
        segment_pos: Integer[Array, "B T"] | None,
    ) -> tuple[Integer[Array, "B T"], Integer[Array, "B T"]]:
        """Segment ids and positions, by default those of one example a row."""
        if segment_ids is None and segment_pos is not None:
            raise ValueError(
                f"{self.path_text}: {side}_segment_pos is given without {side}_segment_ids. Pass "
                "both, or neither for rows of one example each."
            )
        if self.packed_input and segment_ids is None:
            raise ValueError(
                f"{self.path_text}: {side}_segment_ids is None, but packed_input = True needs it."
            )
        if segment_ids is None:
            segment_ids = (paddings == 0).astype(jnp.int32)
        if segment_pos is None:
            positions = jnp.arange(paddings.shape[1], dtype=jnp.int32)[jnp.newaxis]
            segment_pos = jnp.broadcast_to(positions, paddings.shape)
        return segment_ids, segment_pos

    # ---- whole sequences ------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Int[Array, "B S"],
        input_paddings: Shaped[Array, "B S"],
        targets: Int[Array, "B T"],
        target_paddings: Shaped[Array, "B T"],
        labels: NestedMap | None = None,
        input_segment_ids: Integer[Array, "B S"] | None = None,
        input_segment_pos: Integer[Array, "B S"] | None = None,
        input_segment_mask: Shaped[Array, "B 1 S S"] | None = None,
        target_segment_ids: Integer[Array, "B T"] | None = None,
        target_segment_pos: Integer[Array, "B T"] | None = None,
        target_segment_mask: Shaped[Array, "B 1 T T"] | None = None,
        cross_segment_mask: Shaped[Array, "B 1 T S"] | None = None,
        start_time_step: int | Int[Array, ""] = 0,
    ) -> NestedMap:
        """Predicts each label, given the inputs and the targets up to its position.

        Args:
          inputs: [B, S], tokens.
          input_paddings: [B, S], 1 marks padding.
          targets: [B, T], tokens.
          target_paddings: [B, T], 1 marks padding.
          labels: As in `TransformerLm`.
          input_segment_ids: [B, S], of packed examples, 0 in the padding. None: each row is one.
          input_segment_pos: [B, S], position of each token in its example. None: in the row.
          input_segment_mask: [B, 1, S, S], added to the attention logits of the encoder, in place
            of the mask that is made of segment ids.
          target_segment_ids: [B, T], as for inputs.
          target_segment_pos: [B, T], as for inputs.
          target_segment_mask: [B, 1, T, T], of the decoder.
          cross_segment_mask: [B, 1, T, S], of the attention from targets to inputs.
          start_time_step: Where the first `extend_step` after this call goes in the caches.

        Returns:
          As `compute_loss`.
        """
        encoded = self.encode(
            inputs, input_paddings, input_segment_ids, input_segment_pos, input_segment_mask
        )
        return self.fprop_with_encoder_output(
            encoded,
            input_paddings,
            targets,
            target_paddings,
            labels=labels,
            input_segment_ids=input_segment_ids,
            input_segment_pos=input_segment_pos,
            target_segment_ids=target_segment_ids,
            target_segment_pos=target_segment_pos,
            target_segment_mask=target_segment_mask,
            cross_segment_mask=cross_segment_mask,
            start_time_step=start_time_step,
        )

    def encode(
        self,
        inputs: Int[Array, "B S"],
        input_paddings: Shaped[Array, "B S"],
        input_segment_ids: Integer[Array, "B S"] | None = None,
        input_segment_pos: Integer[Array, "B S"] | None = None,
        input_segment_mask: Shaped[Array, "B 1 S S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """Embeds the inputs in their context; arguments as in `__call__`."""
        segment_ids, segment_pos = self._segments(
            "input", input_paddings, input_segment_ids, input_segment_pos
        )
        x = self._embed("encoder", inputs, input_paddings, segment_pos)
        if input_segment_mask is None:
            input_segment_mask = masks.segment_mask(segment_ids, dtype=x.dtype)
        x = self.encoder(
            x, input_paddings, segment_mask=input_segment_mask, segment_pos=segment_pos
        )
        return x if self.encoder_ln_tpl is None else self.encoder_ln(x)

    def fprop_with_encoder_output(
        self,
        encoder_output: Float[Array, "B S D"],
        input_paddings: Shaped[Array, "B S"],
        targets: Int[Array, "B T"],
        target_paddings: Shaped[Array, "B T"],
        labels: NestedMap | None = None,
        input_segment_ids: Integer[Array, "B S"] | None = None,
        input_segment_pos: Integer[Array, "B S"] | None = None,
        target_segment_ids: Integer[Array, "B T"] | None = None,
        target_segment_pos: Integer[Array, "B T"] | None = None,
        target_segment_mask: Shaped[Array, "B 1 T T"] | None = None,
        cross_segment_mask: Shaped[Array, "B 1 T S"] | None = None,
        start_time_step: int | Int[Array, ""] = 0,
    ) -> NestedMap:
        """As `__call__`, from what `encode` returned; fills the caches if asked."""
        self.update_decode_state("time_step", jnp.asarray(start_time_step, jnp.int32))
        self.update_decode_state("input_paddings", input_paddings)
        input_segment_ids, _ = self._segments(
            "input", input_paddings, input_segment_ids, input_segment_pos
        )
        segment_ids, segment_pos = self._segments(
            "target", target_paddings, target_segment_ids, target_segment_pos
        )
        x = self._embed("decoder", targets, target_paddings, segment_pos, start_time_step)
        if target_segment_mask is None:
            target_segment_mask = masks.causal_segment_mask(segment_ids, x.dtype)
        if cross_segment_mask is None:
            cross_segment_mask = masks.segment_mask(segment_ids, input_segment_ids, x.dtype)
        x = self.decoder(
            x,
            target_paddings,
            segment_mask=target_segment_mask,
            cross_inputs=encoder_output,
            cross_paddings=input_paddings,
            cross_segment_mask=cross_segment_mask,
            segment_pos=segment_pos,
        )
        x = x if self.decoder_ln_tpl is None else self.decoder_ln(x)
        return self.compute_loss(x, labels)

    def compute_loss(
        self, activations: Float[Array, "B T D"], labels: NestedMap | None = None
    ) -> NestedMap:
        """Computes the loss, or without labels the predictions.

        Args:
          activations: [B, T, D].
          labels: As in `__call__`.

        Returns:
          Without labels, `logits`, `log_probs` and `probs`, all [B, T, V]. With labels, what the
          softmax returns, `per_token_xent` [B, T], `per_sequence_xent` [B], `total_loss`,
          `aux_loss` and `aux_loss_weight`, see `TransformerLm.compute_loss`.

        Raises:
          ValueError: if the labels lack an entry.
        """
        if labels is None:
            return lm_loss.predictions(self.softmax.get_logits(activations))
        lm_loss.check_labels(self, labels)
        outputs = lm_loss.token_losses(self.softmax, activations, labels)
        lm_loss.add_aux_losses(self, outputs)
        return outputs

    # ---- decoding -------------------------------------------------------------------------------

    def init_states(
        self,
        inputs: Int[Array, "B S"],
        input_paddings: Shaped[Array, "B S"],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Caches are made by a call over inputs and first targets; this always raises."""
        del args, kwargs
        raise NotImplementedError(
            f"{self.path_text}: init_states for inputs of shape {inputs.shape} and paddings of "
            f"shape {input_paddings.shape}: call the layer on inputs and first targets with the "
            f"collection {base_layer.DECODE_CACHE!r} mutable instead; that creates the caches."
        )

    def extend_step(self, targets: Int[Array, "*B"]) -> NestedMap:
        """Adds a target token to the caches, and predicts what follows it.

        Args:
          targets: [B], tokens; or [B, P], with those before them, of which only the last one is
            new. B may be a multiple of the batch of the inputs.

        Returns:
          `logits`, `log_probs` and `probs`, [B, V].
        """
        time_step = self.get_decode_state("time_step")
        tokens = targets[:, -1:] if targets.ndim == 2 else targets[:, jnp.newaxis]  # [B, 1]
        positions = jnp.broadcast_to(time_step, tokens.shape)
        x = self._table("decoder").emb_lookup(tokens)
        if self.decoder_ngrammer_tpl is not None:
            x = ngram_state.extend(self, self.decoder_ngrammer, tokens, x, positions)
        x = self._add_positions("decoder", x, positions, in_step=True)
        x = self.decoder.extend_step(
            x[:, 0],
            time_step=time_step,
            cross_paddings=self.get_decode_state("input_paddings"),
        )
        self.update_decode_state("time_step", time_step + 1)
        x = x if self.decoder_ln_tpl is None else self.decoder_ln(x)
        return lm_loss.predictions(self.softmax.get_logits(x))

    def transform_decode_state(self, transform_fn: base_layer.DecodeStateTransformFn) -> None:
        """Replaces each cache of target tokens by `transform_fn(array, batch_dim, time_dim)`.

        What is known of the inputs stays as it is: rows of a larger batch share it.
        """
        if self.decoder_ngrammer_tpl is not None:
            ngram_state.transform(self, transform_fn)
        self.decoder.transform_decode_state(transform_fn)

    # ---- sharding -------------------------------------------------------------------------------

    @classmethod
    def set_sharding_params_v1(
        cls,
        model_p: LayerTpl,
        *,
        replica_axis: str,
        data_axis: str,
        mdl_axis: str,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None = None,
        mesh_axis_names: Sequence[str],
        training_optimized: bool,
    ) -> LayerTpl:
        """Shards weights over the data and model axes, and activations over batch and model.

        Args:
          model_p: Config of the model, which is changed.
          replica_axis: Axis of copies of the weights.
          data_axis: Axis that shards D of the weights.
          mdl_axis: Axis that shards heads, hidden widths and the vocabulary.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          mesh_axis_names: Names of the mesh axes.
          training_optimized: Whether `mdl_axis` also shards D of the activations between layers.

        Returns:
          `model_p`.

        Raises:
          NotImplementedError: for parts that have no known sharding.
        """
        model_p.set(
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
        )
        shardings = lm_sharding.data_and_model_parallel(
            data_axis=data_axis,
            mdl_axis=mdl_axis,
            batch_axes=(replica_axis, data_axis),
            seq_axis=None,
            training_optimized=training_optimized,
        )
        lm_sharding.shard_softmax(model_p.softmax_tpl, shardings)
        lm_sharding.shard_position_emb(model_p.position_emb_tpl, shardings)
        for side in SIDES:
            lm_sharding.shard_position_emb(getattr(model_p, f"{side}_position_emb_tpl"), shardings)
            lm_sharding.shard_ngrammer(getattr(model_p, f"{side}_ngrammer_tpl"), shardings)
            for ngrammer in getattr(model_p, f"{side}_post_attention_ngrammer_tpls") or ():
                lm_sharding.shard_ngrammer(ngrammer, shardings)
            table = getattr(model_p, f"{side}_embedding_tpl")
            if table is not None:
                lm_sharding.shard_softmax(table, shardings)
            stack = getattr(model_p, f"{side}_stacked_transformer_tpl")
            if stack is not None:
                lm_sharding.shard_stack(stack, shardings, mesh_axis_names)
        return model_p


def _keep_no_caches(stack: LayerTpl) -> None:
    """Turns the caches of the self-attentions in the config of a stack off, where there are any."""
    given = stack.transformer_layer_params_tpl
    for layer in given if isinstance(given, Sequence) else [given]:
        if hasattr(layer.tr_atten_tpl, "decode_cache"):
            layer.tr_atten_tpl.decode_cache = False

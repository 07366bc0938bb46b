"""A language model of transformer layers: embedding, stack, normalization, softmax."""

import enum
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import normalizations
from praxis.layers.attention import masks
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.position import PositionalEmbedding
from praxis.layers.embedding.shared import SharedEmbeddingSoftmax
from praxis.layers.model import lm_sharding
from praxis.layers.transformer.stack import StackedTransformer

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
NestedMap = py_utils.NestedMap
AuxLossStruct = base_layer.AuxLossStruct
SplitDimsMapping = base_layer.SplitDimsMapping


class LanguageModelType(str, enum.Enum):  # noqa: UP042 (public base classes)
    """Which keys a token sees."""

    CAUSAL = "causal"
    PREFIX = "prefix"
    BIDIRECTIONAL = "bidirectional"


class TransformerLm(base_layer.BaseLayer):
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
      ngrammer_tpl: Not built yet; has to be None.
      post_attention_ngrammer_tpls: Not built yet; has to be None.

    Variables:
      embedding_lookup, position_emb, transformer, final_ln, softmax: as in these layers

    Decode states:
      time_step: [], where the next token goes in the caches

    Raises:
      ValueError: during setup, if a size is missing; in calls, if inputs do not go together.
      NotImplementedError: during setup, for n-grammers.
    """

    position_emb_tpl: LayerTpl | None = template_field(PositionalEmbedding)
    model_dims: int = 0
    stacked_transformer_tpl: LayerTpl = template_field(StackedTransformer)
    softmax_tpl: LayerTpl = template_field(SharedEmbeddingSoftmax)
    vocab_size: int = 0
    packed_input: bool = False
    model_type: LanguageModelType = LanguageModelType.CAUSAL
    ngrammer_tpl: LayerTpl | None = template_field(None)
    post_attention_ngrammer_tpls: Sequence[LayerTpl] | None = template_field(None)
    separate_embedding_tpl: LayerTpl | None = template_field(None)
    final_ln_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    skip_compute_loss: bool = False
    skip_aux_loss: bool = False
    record_activations_in_xent_output: bool = False
    record_logits_in_xent_output: bool = False
    entropy_loss_weight: float | None = None

    def setup(self) -> None:
        check_sizes(self, "model_dims", "vocab_size")
        for field in ("ngrammer_tpl", "post_attention_ngrammer_tpls"):
            if getattr(self, field):
                raise NotImplementedError(
                    f"{self.path_text}: {field} is set, but n-grammers are not built yet. "
                    "Leave it None."
                )
        if self.position_emb_tpl is not None:
            position_emb = self.position_emb_tpl.clone().set(embedding_dims=self.model_dims)
            self.create_child("position_emb", position_emb)
        if self.separate_embedding_tpl is not None:
            self.create_child("embedding_lookup", self._with_sizes(self.separate_embedding_tpl))
        self.create_child("transformer", self._stack_config())
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
        lm_sharding.inner_stack(config).set(
            model_dims=self.model_dims,
            packed_input=self.packed_input,
            fold_padding_with_segment_mask=True,
            mask_self_attention=self.model_type == LanguageModelType.CAUSAL,
        )
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
        segment_mask: Shaped[Array, "B 1 T T"] | None = None,
        start_time_step: int | Int[Array, ""] = 0,
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
          **input_kwargs: For subclasses that have further inputs; this class has none.

        Returns:
          As `compute_loss`; the activations [B, T, D] with `skip_compute_loss`.
        """
        self._check_inputs(segment_ids, segment_pos, input_kwargs)
        weights = 1.0 - paddings.astype(jnp.float32)
        self.add_summary("num_unpadded_tokens", lambda: jnp.sum(weights))
        self.add_summary("ratio_unpadded_tokens", lambda: jnp.mean(weights))
        self.update_decode_state("time_step", jnp.asarray(start_time_step, jnp.int32))

        if segment_ids is None:
            segment_ids = (paddings == 0).astype(jnp.int32)
            segment_pos = jnp.broadcast_to(
                jnp.arange(inputs.shape[1], dtype=jnp.int32)[jnp.newaxis], inputs.shape
            )
        x = self._embed(inputs, segment_pos, inputs.shape[1])
        if segment_mask is None:
            segment_mask = self._segment_mask(segment_ids, causal_attention_mask, x.dtype)
        x = self.transformer(x, paddings, segment_mask=segment_mask, segment_pos=segment_pos)
        activations = self.final_ln(x)
        if self.skip_compute_loss:
            return activations
        return self.compute_loss(activations, labels, inputs)

    def _check_inputs(
        self, segment_ids: Any, segment_pos: Any, input_kwargs: dict[str, Any]
    ) -> None:
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

    def _embed(
        self, tokens: Int[Array, "B T"], positions: Integer[Array, "B T"] | None, seq_length: int
    ) -> Float[Array, "B T D"]:
        """The embeddings of tokens at positions below `seq_length`."""
        table = self.softmax if self.separate_embedding_tpl is None else self.embedding_lookup
        x = table.emb_lookup(tokens)
        if self.position_emb_tpl is not None:
            x += self.position_emb(seq_length=seq_length, position=positions)
        return x

    def _segment_mask(
        self,
        segment_ids: Integer[Array, "B T"],
        causal_attention_mask: Shaped[Array, "B T"] | None,
        dtype: Any,
    ) -> Float[Array, "B 1 T T"]:
        if self.model_type == LanguageModelType.BIDIRECTIONAL:
            return masks.segment_mask(segment_ids, dtype=dtype)
        return masks.causal_segment_mask(segment_ids, dtype, causal_attention_mask)

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
            return self._predictions(self.softmax.get_logits(activations, input_ids))
        self._check_labels(labels)
        class_ids, weights = labels.get("class_ids"), labels.class_weights
        outputs = self.softmax(
            activations,
            weights[..., jnp.newaxis],
            class_ids=None if class_ids is None else class_ids[..., jnp.newaxis],
            class_probabilities=labels.get("class_probabilities"),
            input_ids=input_ids,
        )
        outputs.per_token_xent = outputs.per_example_xent * weights.astype(jnp.float32)
        outputs.per_sequence_xent = jnp.sum(outputs.per_token_xent, axis=-1)
        outputs.total_loss = outputs.avg_xent
        if self.record_logits_in_xent_output and outputs.logits is None:
            outputs.logits = self.softmax.get_logits(activations, input_ids)
        if self.record_activations_in_xent_output:
            outputs.activations = activations
        if self.entropy_loss_weight is not None:
            logits = outputs.logits
            if logits is None:
                logits = self.softmax.get_logits(activations, input_ids)
            outputs.avg_entropy_loss = -mean_entropy(logits)
            outputs.total_loss += self.entropy_loss_weight * outputs.avg_entropy_loss
        if not self.skip_aux_loss:
            outputs.aux_loss, outputs.aux_loss_weight = self._total_aux_loss()
            self.add_summary("total_aux_loss", outputs.aux_loss)
            self.add_summary("total_aux_loss_weight", outputs.aux_loss_weight)
            outputs.total_loss += outputs.aux_loss
        return outputs

    def _check_labels(self, labels: NestedMap) -> None:
        given = sorted(labels.keys())
        if "class_weights" not in labels or not {"class_ids", "class_probabilities"} & set(given):
            raise ValueError(
                f"{self.path_text}: labels have {given}, expected class_weights [B, T] and "
                "class_ids [B, T] or class_probabilities [B, T, V]."
            )

    def _predictions(self, logits: Float[Array, "*B V"]) -> NestedMap:
        """Logits and probabilities, computed in float32, in the dtype of the logits."""
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        return NestedMap(
            logits=logits,
            log_probs=log_probs.astype(logits.dtype),
            probs=jnp.exp(log_probs).astype(logits.dtype),
        )

    def _total_aux_loss(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Sums the auxiliary losses of this layer and of all below it, and their weights."""
        leaves = jax.tree.leaves(
            base_layer.maybe_unbox_value(self.variables.get(base_layer.AUX_LOSS, {})),
            is_leaf=lambda node: isinstance(node, AuxLossStruct),
        )
        zero = jnp.zeros([], jnp.float32)
        return (
            sum((jnp.sum(leaf.value) for leaf in leaves), zero),
            sum((jnp.sum(leaf.weight) for leaf in leaves), zero),
        )

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
        x = self._embed(block, positions.reshape(block.shape), self._longest_length(block_len))
        x = self.transformer.extend_step(
            x if inputs.ndim == 2 else x[:, 0],
            time_step=time_step,
            segment_pos=segment_pos,
            atten_mask=atten_mask,
        )
        self.update_decode_state("time_step", time_step + block_len)
        activations = self.final_ln(x)
        outputs = self._predictions(self.softmax.get_logits(activations, inputs))
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
        self.transformer.transform_decode_state(transform_fn)

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Keeps the caches as prefixes that samples share, and starts new ones for suffixes."""
        self.transformer.lazy_broadcast_prefix(num_suffix_samples, suffix_length)

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: base_layer.DecodeStateTransformFn
    ) -> None:
        """Joins shared prefixes with the caches, and aligns the results."""
        self.transformer.right_align_decode_state_with_prefix(max_prefix_size, right_align_fn)

    # ---- sharding -------------------------------------------------------------------------------

    @classmethod
    def set_sharding_params_v1(
        cls,
        lm_p: LayerTpl,
        *,
        replica_axis: str,
        data_axis: str,
        mdl_axis: str,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None = None,
        batch_axes: Sequence[str] | None = None,
        mesh_axis_names: Sequence[str],
        seq_axis: str | None = None,
        training_optimized: bool,
    ) -> LayerTpl:
        """Shards weights over the data and model axes, and activations over batch and model.

        Args:
          lm_p: Config of the model, which is changed.
          replica_axis: Axis of copies of the weights.
          data_axis: Axis that shards D of the weights.
          mdl_axis: Axis that shards heads, hidden widths and the vocabulary.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          batch_axes: Axes that shard the batch; None takes (`replica_axis`, `data_axis`).
          mesh_axis_names: Names of the mesh axes.
          seq_axis: Axis that shards time, and D of the weights too.
          training_optimized: Whether `mdl_axis` also shards D of the activations between layers.

        Returns:
          `lm_p`.
        """
        shardings = lm_sharding.data_and_model_parallel(
            data_axis=data_axis,
            mdl_axis=mdl_axis,
            batch_axes=(replica_axis, data_axis) if batch_axes is None else batch_axes,
            seq_axis=seq_axis,
            training_optimized=training_optimized,
        )
        return cls.set_custom_sharding_params(
            lm_p,
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
            **vars(shardings),
        )

    @classmethod
    def set_custom_sharding_params(
        cls,
        lm_p: LayerTpl,
        *,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None = None,
        mesh_axis_names: Sequence[str],
        w_df: SplitDimsMapping = None,
        w_dnh: SplitDimsMapping = None,
        w_emh: SplitDimsMapping = None,
        w_vd: SplitDimsMapping = None,
        a_bld: SplitDimsMapping = None,
        a_blf: SplitDimsMapping = None,
        a_blh: SplitDimsMapping = None,
        a_blnh: SplitDimsMapping = None,
        a_blv: SplitDimsMapping = None,
        a_egch: SplitDimsMapping = None,
        a_egcm: SplitDimsMapping = None,
        a_bd: SplitDimsMapping = None,
        a_bf: SplitDimsMapping = None,
        a_bv: SplitDimsMapping = None,
    ) -> LayerTpl:
        """Sets the sharding of all parts by letters, see `lm_sharding.LmShardings`.

        Args:
          lm_p: Config of the model, which is changed.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          mesh_axis_names: Names of the mesh axes.
          w_df: Of the weights of feed-forwards, and of learned positions.
          w_dnh: Of the projections of attentions.
          w_emh: Of the weights of experts; not read, since experts are not built yet.
          w_vd: Of embedding tables and of the softmax, in this order whatever is stored.
          a_bld: Of activations of model width.
          a_blf: Of hidden activations of feed-forwards.
          a_blh: Of keys and values of one head.
          a_blnh: Of queries, keys and values.
          a_blv: Of logits.
          a_egch: Of hidden activations of experts; not read.
          a_egcm: Of outputs of experts; not read.
          a_bd: As a_bld, of one decoding step; None takes it from a_bld.
          a_bf: As a_blf, of one decoding step; None takes it from a_blf.
          a_bv: As a_blv, of one decoding step; None takes it from a_blv.

        Returns:
          `lm_p`.

        Raises:
          NotImplementedError: for parts that have no known sharding.
        """
        del w_emh, a_egch, a_egcm
        lm_p.set(
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
        )
        shardings = lm_sharding.LmShardings(
            w_df=w_df,
            w_dnh=w_dnh,
            w_vd=w_vd,
            a_bld=a_bld,
            a_blf=a_blf,
            a_blh=a_blh,
            a_blnh=a_blnh,
            a_blv=a_blv,
            a_bd=a_bd,
            a_bf=a_bf,
            a_bv=a_bv,
        )
        lm_sharding.shard_lm(lm_p, shardings)
        return lm_p


def mean_entropy(logits: Float[Array, "*B V"]) -> Float[Array, ""]:
    """Entropy of the predictions, in nats, averaged over all positions; float32."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))

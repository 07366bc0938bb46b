"""Multi-head dot-product attention, for training and for decoding with a cache."""

from collections.abc import Mapping

from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops, embedding_softmax, stochastics
from praxis.layers.attention import checks, children, options, projection, score
from praxis.layers.attention.dconv import CausalDepthwiseConv1D
from praxis.layers.attention.decoding import AttentionDecoding
from praxis.layers.attention.hooks import Heads, Mask, Positions

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


class DotProductAttention(AttentionDecoding):
    """Multi-head attention of Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.

    Projects to N heads, convolves over time, rotates queries and keys by position, normalises them,
    scales queries, takes `softmax(mask(cap(query . key + bias)))` in float32, averages the values
    and projects back. Each of these steps but the first and the last is optional; each is a method
    of `AttentionSteps`, which a variant may replace.

    Shapes: D is `input_dim` (of the queries), N is `num_heads`, H is `dim_per_head` or
    `hidden_dim / num_heads`.

    A call whose `decoder_cache` collection is mutable keeps the keys, as attention reads them
    (rotated and normalised), and the values of the whole sequence; `extend_step` then continues
    from any position in it.

    Attributes:
      input_dim: D, or a dict of the widths of "query", "key" and "value". Required.
      hidden_dim: Width of all heads together. Required, unless `dim_per_head` is given and it is
        not read for the scale of queries.
      num_heads: N, at least 1.
      dim_per_head: H; None takes `hidden_dim / num_heads`.
      dropout_tpl: Config of the dropout of probabilities. The probability of keeping is filled in.
      atten_dropout_prob: Probability of dropping an attention probability, in training.
      proj_tpl: Config of the projections, if they are separate, and of the one of the output.
        Sizes, `use_bias` and sharding are filled in.
      combine_qkv: Project to queries, keys and values with one variable. Self-attention only.
      combined_qkv_proj_tpl: Config of that projection.
      use_bias: Whether projections have a bias.
      output_proj_use_nhd_shape: Store the output projection as [N, H, D].
      internal_gshard_gaussian_init: Start the projections as normal numbers with standard
        deviation (D H)^-0.5 for queries, D^-0.5 for keys and values and (N H)^-0.5 for the output.
        It does not act on `combine_qkv`.
      internal_enable_query_scale: Whether to scale queries.
      internal_enable_per_dim_scale: Scale queries with `per_dim_scale_tpl`; False by a constant.
      per_dim_scale_tpl: Config of the learned scale. H is filled in.
      scale_query_by_dim_per_head: The constant is `dim_per_head ** -0.5`, not
        `(hidden_dim / num_heads) ** -0.5`.
      scale_logits_by_head_dims: Multiply the logits by `H ** -0.5`, besides the scale of queries.
      atten_logit_cap: Soft cap of the logits, see `score.cap_logits`; 0 for none.
      attention_extra_logit: Logit of a key of value 0 that all queries see; None for none.
      zero_fully_masked: Make the context of a query that sees no key 0, not the mean of all values.
      dconv_qkv: Convolve queries, keys and values over time.
      dconv_kernel_size: Steps that this convolution reads, the present one included.
      causal_depthwise_conv1d_tpl: Config of it. Sizes and sharding are filled in.
      relative_bias_tpl: Config of what is added to the logits by distance; None for nothing. N is
        filled in.
      ngrammer_tpl: Config of a layer on the context, such as `VQNgrammer`; None for none.
      use_rotary_position_emb: Rotate queries and keys by position.
      rotary_position_emb_tpl: Config of the rotation. H and the cast are filled in.
      cast_rotary_position_emb: Cast what is rotated back to `fprop_dtype`.
      ln_tpl: Config of the normalization of queries and keys over H, after the rotation; None for
        none.
      qk_einsum_tpl: Config of the product of queries and keys.
      pv_einsum_tpl: Config of the product of probabilities and values.
      implementation: How attention is computed in calls: "reference" holds all logits at once;
        "blockwise" needs memory linear in T and S; "fused" is a kernel of the accelerator; "auto"
        is blockwise where T S is large and nothing needs all probabilities, see `attend`. The last
        three give no probabilities where they are not computed.
      decode_cache: Whether calls keep keys and values for decoding.
      decode_cache_dtype: Type in which they are kept: None as they are computed; a floating type;
        or int8, with a float32 scale for each vector.
      consolidate_rope_key_state: Accepted for old configs, and needs `use_rotary_position_emb`.
        Keys are kept once, rotated, in either case.
      decoding_maybe_shard_projections: Shard what is projected in `extend_step` too.
      attention_mask_summary: Report the mask as an image.

    Variables:
      query, key, value: as in `AttentionProjection`; or combined_qkv, as in
        `CombinedQKVProjectionLayer`
      post: as in `AttentionProjection`, an output projection
      per_dim_scale/per_dim_scale: [H]
      layer_norm_q, layer_norm_k: with `ln_tpl`
      dconv_q, dconv_k, dconv_v: as in `CausalDepthwiseConv1D`, with `dconv_qkv`
      relative_bias: with `relative_bias_tpl`
      ngrammer: with `ngrammer_tpl`

    Decode states:
      key_state: [B, S, N, H]
      value_state: [B, S, N, H]
      key_state_scale, value_state_scale: [B, S, N, 1], with int8
      query_state, key_post_dconv, value_post_dconv: [B, S, N, H], with `dconv_qkv`; the names
        above then hold keys and values before the convolution
      encoded_pre_ngrammer: [B, S, N, H], with `ngrammer_tpl`

    Raises:
      ValueError: during setup, if sizes do not go together or options contradict each other; in
        calls, if shapes do not go together.
      TypeError: in calls, if the mask holds integers.
    """

    input_dim: int | Mapping[str, int] = 0
    hidden_dim: int = 0
    num_heads: int = 1
    dim_per_head: int | None = None
    dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    atten_dropout_prob: float = 0.0
    proj_tpl: LayerTpl = template_field(projection.AttentionProjection)
    combine_qkv: bool = False
    combined_qkv_proj_tpl: LayerTpl = template_field(projection.CombinedQKVProjectionLayer)
    use_bias: bool = True
    output_proj_use_nhd_shape: bool = False
    internal_gshard_gaussian_init: bool = False
    internal_enable_query_scale: bool = True
    internal_enable_per_dim_scale: bool = True
    per_dim_scale_tpl: LayerTpl = template_field(score.PerDimScale)
    scale_query_by_dim_per_head: bool = False
    scale_logits_by_head_dims: bool = False
    atten_logit_cap: float = 0.0
    attention_extra_logit: float | None = None
    zero_fully_masked: bool = False
    dconv_qkv: bool = False
    dconv_kernel_size: int = 3
    causal_depthwise_conv1d_tpl: LayerTpl = template_field(CausalDepthwiseConv1D)
    relative_bias_tpl: LayerTpl | None = template_field(None)
    ngrammer_tpl: LayerTpl | None = template_field(None)
    use_rotary_position_emb: bool = False
    rotary_position_emb_tpl: LayerTpl | None = template_field(
        embedding_softmax.RotaryPositionalEmbedding
    )
    cast_rotary_position_emb: bool = True
    ln_tpl: LayerTpl | None = template_field(None)
    qk_einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    pv_einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    implementation: str = "auto"
    consolidate_rope_key_state: bool = False
    decoding_maybe_shard_projections: bool = False
    attention_mask_summary: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          proj: Of the projections, in the order [D, N, H].
          dconv: Of depthwise convolutions, [N, H].
        """

        proj: SplitDimsMapping = None
        dconv: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          blnh: Of queries, keys, values, contexts and caches, [B, T, N, H].
          bld: Of the output, [B, T, D].
        """

        blnh: SplitDimsMapping = None
        bld: SplitDimsMapping = None

    @property
    def head_dims(self) -> int:
        """H."""
        return self.dim_per_head or self.hidden_dim // self.num_heads

    def setup(self) -> None:
        self._check_fields()
        widths = options.input_widths(self)
        if self.combine_qkv:
            self.create_child("combined_qkv", children.combined_projection(self, widths["query"]))
        else:
            for name in ("key", "query", "value"):
                self.create_child(name, children.input_projection(self, name, widths[name]))
        self.create_child("post", children.output_projection(self, widths["query"]))
        if self.dconv_qkv:
            for name in ("dconv_q", "dconv_k", "dconv_v"):
                self.create_child(name, children.depthwise_convolution(self))
        if self.use_rotary_position_emb:
            self.create_child("rotary_position_emb", children.rotation(self))
        if self.relative_bias_tpl is not None:
            bias = self.relative_bias_tpl.clone().set(num_heads=self.num_heads)
            self.create_child("relative_bias", bias)
        if self.ln_tpl is not None:
            self.create_child("layer_norm_q", self.ln_tpl.clone().set(dim=self.head_dims))
            self.create_child("layer_norm_k", self.ln_tpl.clone().set(dim=self.head_dims))
        if self.ngrammer_tpl is not None:
            self.create_child("ngrammer", self.ngrammer_tpl)
        if self.internal_enable_query_scale and self.internal_enable_per_dim_scale:
            scale = self.per_dim_scale_tpl.clone().set(dim=self.head_dims)
            self.create_child("per_dim_scale", scale)
        dropout = self.dropout_tpl.clone().set(keep_prob=1.0 - self.atten_dropout_prob)
        self.create_child("atten_dropout", dropout)
        self.create_child("qk_einsum", self.qk_einsum_tpl)
        self.create_child("pv_einsum", self.pv_einsum_tpl)

    def _check_fields(self) -> None:
        """Refuses sizes that do not go together and options that contradict each other."""
        checks.check_head_sizes(self)
        checks.check_score_fields(self)
        checks.check_rotary_fields(self)
        self._check_cache_fields()
        if self.dconv_qkv and self.consolidate_rope_key_state:
            raise ValueError(
                f"{self.path_text}: dconv_qkv = True contradicts consolidate_rope_key_state = "
                "True: the convolution of the next step reads keys that are not rotated. Set one "
                "of them to False."
            )
        options.check_whole_probabilities(
            self,
            {
                "atten_dropout_prob": self.atten_dropout_prob > 0.0,
                "qk_einsum_tpl": options.is_injected(self.qk_einsum_tpl),
                "pv_einsum_tpl": options.is_injected(self.pv_einsum_tpl),
                "ngrammer_tpl": self.ngrammer_tpl is not None,
            },
        )

    def __call__(
        self,
        query_vec: Float[Array, "B T D"],
        key_vec: Float[Array, "B S _"],
        value_vec: Float[Array, "B S _"],
        atten_mask: Mask,
        query_segment_pos: Positions = None,
        key_segment_pos: Int[Array, "_ S"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "..."] | None]:
        """Attends from each query to the keys that the mask lets it see.

        Args:
          query_vec: [B, T, D].
          key_vec: [B, S, D], or of the width of keys.
          value_vec: [B, S, D], or of the width of values.
          atten_mask: [B, 1, T, S], with 1 for B or T where these share it. Added to the logits: 0
            keeps, large negative hides. Or booleans: True keeps. Or an `AttentionMask`.
          query_segment_pos: [B, T], positions for what depends on them; None: 0 to T - 1.
          key_segment_pos: [B, S], as for queries.

        Returns:
          The outputs [B, T, D], and the probabilities [B, N, T, S], or None where `implementation`
          does not compute them.
        """
        heads = self._project(query_vec, key_vec, value_vec)
        blnh = self.activation_split_dims_mapping.blnh
        heads = Heads(*(self._shard(x, blnh) for x in heads))
        lengths = (heads.query.shape[1], heads.key.shape[1])
        full = (heads.query.shape[0], 1, *lengths)
        checks.check_mask(self, atten_mask, full, "[B, 1, T, S]")
        if self.attention_mask_summary:
            self._summarise_mask(atten_mask)
        if self.dconv_qkv:
            heads = self._convolve(heads, query_segment_pos, key_segment_pos)
        query = self._position(heads.query, query_segment_pos, "q")
        key, value = self._position(heads.key, key_segment_pos, "k"), heads.value
        self._store_state(self._key_name, key)
        self._store_state(self._value_name, value)

        query = self._scale_query(query)
        bias = self._bias(query, query_segment_pos, key_segment_pos, key.shape[1])
        context, probs = self._attend(query, key, value, atten_mask, bias)
        context = checkpoint_name(self._shard(context, blnh), "context")
        if self.ngrammer_tpl is not None:
            self._store_state("encoded_pre_ngrammer", context)
            context = self.ngrammer(
                input_ids=None,
                input_embs=context,
                segment_pos=query_segment_pos,
                merge_heads=False,
                attention_scores=probs,
            )
        output = self._shard(self.post(context), self.activation_split_dims_mapping.bld)
        return checkpoint_name(output, "out_proj"), probs

"""Multi-head dot-product attention, for training and for decoding with a cache."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops, embedding_softmax, stochastics
from praxis.layers.attention import projection, score
from praxis.layers.attention.cache import TimeStep, write_steps
from praxis.layers.checks import check_sizes

template_field = base_layer.template_field
WeightInit = base_layer.WeightInit
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping
DecodeStateTransformFn = base_layer.DecodeStateTransformFn

Heads = Float[Array, "..."]


class DotProductAttention(base_layer.BaseLayer):
    """Multi-head attention of Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.

    Projects to N heads, rotates queries and keys by position, normalises them, scales queries,
    takes `softmax(mask(cap(query . key)))` in float32, averages the values and projects back. Each
    of these steps but the first and the last is optional.

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
      use_rotary_position_emb: Rotate queries and keys by position.
      rotary_position_emb_tpl: Config of the rotation. H and the cast are filled in.
      cast_rotary_position_emb: Cast what is rotated back to `fprop_dtype`.
      ln_tpl: Config of the normalization of queries and keys over H, after the rotation; None for
        none.
      qk_einsum_tpl: Config of the product of queries and keys.
      pv_einsum_tpl: Config of the product of probabilities and values.
      decode_cache: Whether calls keep keys and values for decoding.
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

    Decode states:
      key_state: [B, S, N, H]
      value_state: [B, S, N, H]

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
    use_rotary_position_emb: bool = False
    rotary_position_emb_tpl: LayerTpl | None = template_field(
        embedding_softmax.RotaryPositionalEmbedding
    )
    cast_rotary_position_emb: bool = True
    ln_tpl: LayerTpl | None = template_field(None)
    qk_einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    pv_einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    decode_cache: bool = True
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
        widths = self._input_widths()
        if self.combine_qkv:
            self._create_combined_projection(widths["query"])
        else:
            self._create_projections(widths)
        self._create_output_projection(widths["query"])
        if self.use_rotary_position_emb:
            assert self.rotary_position_emb_tpl is not None  # by _check_fields
            self.create_child(
                "rotary_position_emb",
                self.rotary_position_emb_tpl.clone().set(
                    embedding_dims=self.head_dims,
                    cast_as_fprop_dtype=self.cast_rotary_position_emb,
                ),
            )
        if self.ln_tpl is not None:
            self.create_child("layer_norm_q", self.ln_tpl.clone().set(dim=self.head_dims))
            self.create_child("layer_norm_k", self.ln_tpl.clone().set(dim=self.head_dims))
        if self.internal_enable_query_scale and self.internal_enable_per_dim_scale:
            self.create_child(
                "per_dim_scale", self.per_dim_scale_tpl.clone().set(dim=self.head_dims)
            )
        dropout = self.dropout_tpl.clone().set(keep_prob=1.0 - self.atten_dropout_prob)
        self.create_child("atten_dropout", dropout)
        self.create_child("qk_einsum", self.qk_einsum_tpl)
        self.create_child("pv_einsum", self.pv_einsum_tpl)

    def _check_fields(self) -> None:
        """Refuses sizes that do not go together and options that contradict each other."""
        check_sizes(self, "num_heads")
        if self.dim_per_head is None:
            check_sizes(self, "hidden_dim")
            if self.hidden_dim % self.num_heads:
                nearest = -(-self.hidden_dim // self.num_heads) * self.num_heads
                raise ValueError(
                    f"{self.path_text}: hidden_dim = {self.hidden_dim} is not a multiple of "
                    f"num_heads = {self.num_heads}.\n"
                    f"Set hidden_dim to {nearest}, or set dim_per_head explicitly."
                )
        else:
            check_sizes(self, "dim_per_head")
        if not 0.0 <= self.atten_dropout_prob < 1.0:
            raise ValueError(
                f"{self.path_text}: atten_dropout_prob is {self.atten_dropout_prob}, expected a "
                "probability of dropping, at least 0 and below 1."
            )
        if self.atten_logit_cap < 0.0:
            raise ValueError(
                f"{self.path_text}: atten_logit_cap is {self.atten_logit_cap}, expected a positive "
                "cap, or 0 for none."
            )
        if self.use_rotary_position_emb and self.rotary_position_emb_tpl is None:
            raise ValueError(
                f"{self.path_text}: use_rotary_position_emb = True needs a "
                "rotary_position_emb_tpl, which is None. Set one of them."
            )
        if self.consolidate_rope_key_state and not self.use_rotary_position_emb:
            raise ValueError(
                f"{self.path_text}: consolidate_rope_key_state = True contradicts "
                "use_rotary_position_emb = False: there are no rotated keys. Set the first to "
                "False or the second to True."
            )

    def _input_widths(self) -> Mapping[str, int]:
        """The widths of query, key and value."""
        names = ("query", "key", "value")
        if not isinstance(self.input_dim, Mapping):
            check_sizes(self, "input_dim")
            return dict.fromkeys(names, self.input_dim)
        if set(self.input_dim) != set(names):
            raise ValueError(
                f"{self.path_text}: input_dim is {dict(self.input_dim)}, expected a width, or a "
                f"dict with the widths of {names}."
            )
        if self.combine_qkv and len(set(self.input_dim.values())) > 1:
            raise ValueError(
                f"{self.path_text}: combine_qkv = True contradicts input_dim = "
                f"{dict(self.input_dim)}: one projection has one width. Set combine_qkv to False."
            )
        return self.input_dim

    def _create_projections(self, widths: Mapping[str, int]) -> None:
        for name in ("key", "query", "value"):
            tpl = self.proj_tpl.clone().set(
                input_dim=widths[name],
                num_heads=self.num_heads,
                dim_per_head=self.head_dims,
                use_bias=self.use_bias,
            )
            tpl.weight_split_dims_mapping.wt = self.weight_split_dims_mapping.proj
            if self.internal_gshard_gaussian_init:
                fan = widths[name] * (self.head_dims if name == "query" else 1)
                tpl.params_init = WeightInit.Gaussian(fan**-0.5)
            self.create_child(name, tpl)

    def _create_combined_projection(self, width: int) -> None:
        tpl = self.combined_qkv_proj_tpl.clone().set(
            input_dim=width,
            num_heads=self.num_heads,
            dim_per_head=self.head_dims,
            use_bias=self.use_bias,
        )
        tpl.weight_split_dims_mapping.wt = self.weight_split_dims_mapping.proj
        self.create_child("combined_qkv", tpl)

    def _create_output_projection(self, width: int) -> None:
        tpl = self.proj_tpl.clone().set(
            input_dim=width,
            num_heads=self.num_heads,
            dim_per_head=self.head_dims,
            is_output_projection=True,
            use_bias=self.use_bias,
            use_nhd_shape=self.output_proj_use_nhd_shape,
        )
        split = self.weight_split_dims_mapping.proj
        if split is not None and self.output_proj_use_nhd_shape:
            split = [*split[1:], split[0]]
        tpl.weight_split_dims_mapping.wt = split
        if self.internal_gshard_gaussian_init:
            tpl.params_init = WeightInit.Gaussian((self.num_heads * self.head_dims) ** -0.5)
        self.create_child("post", tpl)

    def __call__(
        self,
        query_vec: Float[Array, "B T D"],
        key_vec: Float[Array, "B S _"],
        value_vec: Float[Array, "B S _"],
        atten_mask: Shaped[Array, "..."],
        query_segment_pos: Int[Array, "_ T"] | None = None,
        key_segment_pos: Int[Array, "_ S"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B N T S"]]:
        """Attends from each query to the keys that the mask lets it see.

        Args:
          query_vec: [B, T, D].
          key_vec: [B, S, D], or of the width of keys.
          value_vec: [B, S, D], or of the width of values.
          atten_mask: [B, 1, T, S], with 1 for B or T where these share it. Added to the logits: 0
            keeps, large negative hides. Or booleans: True keeps.
          query_segment_pos: [B, T], positions for the rotation; None: 0 to T - 1.
          key_segment_pos: [B, S], as for queries.

        Returns:
          The outputs [B, T, D], and the probabilities [B, N, T, S].
        """
        query, key, value = self._project(query_vec, key_vec, value_vec)
        blnh = self.activation_split_dims_mapping.blnh
        query, key, value = (self._shard(heads, blnh) for heads in (query, key, value))
        self._check_mask(
            atten_mask, (query.shape[0], 1, query.shape[1], key.shape[1]), "[B, 1, T, S]"
        )
        if self.use_rotary_position_emb:
            query = self.rotary_position_emb(query, query_segment_pos)
            key = self.rotary_position_emb(key, key_segment_pos)
        query, key = self._normalise(query, key)
        if self.decode_cache:
            self.update_decode_state("key_state", key)
            self.update_decode_state("value_state", value)
        if self.attention_mask_summary:
            self._summarise_mask(atten_mask)

        logits = self._logits("BTNH,BSNH->BNTS", query, key)
        probs = self._probs(logits, atten_mask).astype(key.dtype)
        probs = self.atten_dropout(probs)
        context = self.pv_einsum("BNTS,BSNH->BTNH", probs, value)
        if self.zero_fully_masked:
            context = score.zero_blind_queries(context, atten_mask)
        context = checkpoint_name(self._shard(context, blnh), "context")
        output = self._shard(self.post(context), self.activation_split_dims_mapping.bld)
        return checkpoint_name(output, "out_proj"), probs

    def _project(
        self,
        query_vec: Float[Array, "..."],
        key_vec: Float[Array, "..."],
        value_vec: Float[Array, "..."],
    ) -> tuple[Heads, Heads, Heads]:
        """Queries [..., N, H], keys and values."""
        if self.combine_qkv:
            if query_vec is not key_vec or query_vec is not value_vec:
                raise ValueError(
                    f"{self.path_text}: combine_qkv = True is for self-attention, but query_vec, "
                    "key_vec and value_vec are not one and the same array. Pass the same array "
                    "three times, or set combine_qkv to False."
                )
            return self.combined_qkv(query_vec)
        return (
            checkpoint_name(self.query(query_vec), "query_proj"),
            checkpoint_name(self.key(key_vec), "key_proj"),
            checkpoint_name(self.value(value_vec), "value_proj"),
        )

    def _normalise(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Normalises over H, if asked for."""
        if self.ln_tpl is None:
            return query, key
        return self.layer_norm_q(query), self.layer_norm_k(key)

    def _scale_query(self, query: Heads) -> Heads:
        if not self.internal_enable_query_scale:
            return query
        if self.internal_enable_per_dim_scale:
            return self.per_dim_scale(query)
        dims = self.hidden_dim // self.num_heads
        if self.scale_query_by_dim_per_head or not dims:
            dims = self.head_dims
        return query * dims**-0.5

    def _logits(self, equation: str, query: Heads, key: Heads) -> Float[Array, "..."]:
        """Products of scaled queries and keys, before the cap."""
        logits = self.qk_einsum(equation, self._scale_query(query), key)
        logits = checkpoint_name(logits, "logits")
        if self.scale_logits_by_head_dims:
            logits *= self.head_dims**-0.5
        self.add_summary("max_logit_precap", lambda: jnp.max(logits), verbosity=4)
        self.add_summary(
            "rms_logits_precap",
            lambda: jnp.sqrt(jnp.mean(jnp.square(logits.astype(jnp.float32)))),
            verbosity=4,
        )
        return logits

    def _probs(
        self, logits: Float[Array, "*B S"], atten_mask: Shaped[Array, "..."]
    ) -> Float[Array, "*B S"]:
        return score.attention_probs(
            logits,
            atten_mask,
            cap=self.atten_logit_cap,
            extra_logit=self.attention_extra_logit,
        )

    def _shard(self, x: Float[Array, "..."], split: SplitDimsMapping) -> Float[Array, "..."]:
        """Shards [B, T, ...], or [B, ...] of one decoding step, by a mapping for [B, T, ...]."""
        if split is not None and len(split) == x.ndim + 1:
            split = [split[0], *split[2:]]
        return base_layer.maybe_shard(x, split, self.mesh_axis_names)

    def _check_mask(
        self, atten_mask: Shaped[Array, "..."], full: tuple[int, ...], letters: str
    ) -> None:
        """Refuses a mask of integers, or one that does not broadcast to a shape."""
        if atten_mask.dtype != jnp.bool and not jnp.issubdtype(atten_mask.dtype, jnp.floating):
            raise TypeError(
                f"{self.path_text}: atten_mask has dtype {atten_mask.dtype}, expected a floating "
                "one (0 keeps, large negative hides) or booleans (True keeps)."
            )
        fits = atten_mask.ndim == len(full) and all(
            have in (1, want) for have, want in zip(atten_mask.shape, full, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{self.path_text}: atten_mask has shape {atten_mask.shape}, expected "
                f"{letters} = {full}, with 1 for a size where it is shared."
            )

    def _summarise_mask(self, atten_mask: Shaped[Array, "B 1 T S"]) -> None:
        self.add_summary(
            "attention_mask",
            lambda: jnp.moveaxis(atten_mask, 1, -1).astype(jnp.float32),
            base_layer.SummaryType.IMAGE,
            verbosity=4,
        )

    def init_states(self, target_batch_size: int, target_max_length: int) -> None:
        """Caches are made by a call over the prompt, see the class; this always raises."""
        raise NotImplementedError(
            f"{self.path_text}: init_states({target_batch_size}, {target_max_length}): call the "
            "layer on inputs of the full length with the collection "
            f"{base_layer.DECODE_CACHE!r} mutable instead; that creates the cache."
        )

    def decoding_state_sequence_length(self) -> int:
        """The number of time steps that the cache has room for."""
        return self.get_decode_state("key_state").shape[1]

    def extend_decode_state(
        self, name: str, value: Float[Array, "..."], time_step: TimeStep, time_dim: int
    ) -> Float[Array, "..."]:
        """Writes one step, or several, into a decode state, in place.

        Args:
          name: Of the state.
          value: [B, N, H], or [B, T, N, H].
          time_step: Where the first step goes.
          time_dim: The time axis of the state.

        Returns:
          The new state.
        """
        split = self.activation_split_dims_mapping.blnh
        state = write_steps(self.get_decode_state(name), value, time_step, time_dim)
        state = self._shard(state, split)
        self.update_decode_state(name, state)
        return state

    def extend_step(
        self,
        query_vec: Float[Array, "..."],
        *,
        atten_mask: Shaped[Array, "..."],
        time_step: TimeStep,
        segment_pos: Int[Array, " B"] | None,
        is_cross_attention: bool = False,
    ) -> Float[Array, "..."]:
        """Attends from the token of one decoding step to the cache.

        Args:
          query_vec: [B, D].
          atten_mask: [B, 1, S], or 1 for B, or b with `is_cross_attention`; as in `__call__`.
          time_step: Where the token goes in the cache, which has to be below S.
          segment_pos: [B], positions for the rotation; None: `time_step`.
          is_cross_attention: Only read the cache. Its batch b may be smaller than B, a multiple
            of it: B / b consecutive queries share a row.

        Returns:
          [B, D].
        """
        if query_vec.ndim != 2:
            raise ValueError(
                f"{self.path_text}: query_vec has shape {query_vec.shape}, expected [B, D], the "
                "token of one step."
            )
        position = time_step if segment_pos is None else segment_pos
        if is_cross_attention:
            query = self._query_for_cross_attention(query_vec)
            key = value = None
        else:
            query, key, value = self._project(query_vec, query_vec, query_vec)
        split = self.activation_split_dims_mapping.blnh
        if self.decoding_maybe_shard_projections:
            query = self._shard(query, split)
        if self.use_rotary_position_emb:
            query = self.rotary_position_emb.extend_step(query, position)
        if self.ln_tpl is not None:
            query = self.layer_norm_q(query)
        if key is None or value is None:
            keys, values = self.get_decode_state("key_state"), self.get_decode_state("value_state")
        else:
            if self.decoding_maybe_shard_projections:
                key, value = self._shard(key, split), self._shard(value, split)
            if self.use_rotary_position_emb:
                key = self.rotary_position_emb.extend_step(key, position)
            if self.ln_tpl is not None:
                key = self.layer_norm_k(key)
            self._check_cache_batch(key)
            keys = self.extend_decode_state("key_state", key, time_step, time_dim=1)
            values = self.extend_decode_state("value_state", value, time_step, time_dim=1)
        context = self._shard(self._attend_one_step(query, keys, values, atten_mask), split)
        return self._shard(self.post(context), self.activation_split_dims_mapping.bld)

    def _query_for_cross_attention(self, query_vec: Float[Array, "B D"]) -> Heads:
        if self.combine_qkv:
            raise ValueError(
                f"{self.path_text}: combine_qkv = True is for self-attention, but extend_step got "
                "is_cross_attention = True. Set combine_qkv to False."
            )
        return self.query(query_vec)

    def _check_cache_batch(self, key: Heads) -> None:
        cached = self.get_decode_state("key_state").shape
        if cached[0] != key.shape[0]:
            raise ValueError(
                f"{self.path_text}: the cache has shape {cached}, so a batch of {cached[0]}, but "
                f"extend_step got a batch of {key.shape[0]}. Repeat the cache first, with "
                "transform_decode_state."
            )

    def _attend_one_step(
        self,
        query: Float[Array, "B N H"],
        keys: Float[Array, "b S N H"],
        values: Float[Array, "b S N H"],
        atten_mask: Shaped[Array, "..."],
    ) -> Float[Array, "B N H"]:
        """Attends from [B, N, H] to a cache, of whose rows B / b queries share one each."""
        batch, rows = query.shape[0], keys.shape[0]
        if batch % rows:
            raise ValueError(
                f"{self.path_text}: the cache has a batch of {rows}, but extend_step got a batch "
                f"of {batch}, which is not a multiple of it."
            )
        mask_rows = rows if atten_mask.shape[0] == rows else batch
        self._check_mask(atten_mask, (mask_rows, 1, keys.shape[1]), "[B, 1, S]")
        # The queries of a row become its time axis, so that the step is a short forward pass.
        query = query.reshape(rows, batch // rows, *query.shape[1:])  # [b, T, N, H]
        mask_queries = batch // rows if atten_mask.shape[0] == batch else 1
        mask = atten_mask.reshape(-1, mask_queries, 1, keys.shape[1])
        mask = jnp.swapaxes(mask, 1, 2)  # [b, 1, T, S]
        logits = self._logits("BTNH,BSNH->BNTS", query, keys)
        probs = self._probs(logits, mask).astype(keys.dtype)
        context = self.pv_einsum("BNTS,BSNH->BTNH", probs, values)
        if self.zero_fully_masked:
            context = score.zero_blind_queries(context, mask)
        return context.reshape(batch, *context.shape[2:])

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the cache by `transform_fn(array, batch_dim=0, time_dim=1)`."""
        states = self.variables.get(base_layer.DECODE_CACHE, {})
        for name in ("key_state", "value_state"):
            if name in states:
                self.update_decode_state(name, transform_fn(states[name], 0, 1))

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """This layer has one cache for prefix and suffix; always raises."""
        raise NotImplementedError(
            f"{self.path_text}: lazy_broadcast_prefix({num_suffix_samples}, {suffix_length}): this "
            "attention does not keep a shared prefix apart. Repeat the cache for each sample, with "
            "transform_decode_state."
        )

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """This layer has one cache for prefix and suffix; always raises."""
        raise NotImplementedError(
            f"{self.path_text}: right_align_decode_state_with_prefix({max_prefix_size}, "
            f"{right_align_fn}): this attention does not keep a shared prefix apart. Use "
            "transform_decode_state."
        )

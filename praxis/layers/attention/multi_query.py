"""Attention whose query heads share the heads of keys and values, one or a few."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops, embedding_softmax, sharding, stochastics
from praxis.layers.attention import checks, children, options, projection
from praxis.layers.attention.attend import Attended
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.hooks import Heads, Mask, Positions
from praxis.layers.attention.mask_spec import Window, as_mask
from praxis.layers.attention.one_headed import OneHeadedAttentionProjection
from praxis.layers.attention.window import WindowAttention
from praxis.layers.checks import check_sizes

template_field = base_layer.template_field
WeightInit = base_layer.WeightInit
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


class MultiQueryDotProductAttention(WindowAttention):
    """Multi-query attention, or grouped-query attention with more than one key-value head.

    Shazeer, "Fast Transformer Decoding: One Write-Head is All You Need", 2019, arXiv:1911.02150;
    Ainslie et al., "GQA", 2023, arXiv:2305.13245. N / K consecutive query heads read one key-value
    head; it is never repeated in memory. Otherwise as `DotProductAttention`, whose steps it shares.

    Shapes: D is `input_dim` (of the queries), N is `num_heads`, K is `num_kv_heads`, H is
    `dim_per_head` or `hidden_dim / num_heads`.

    Attributes:
      input_dim: D, or a dict of the widths of "query", "key" and "value". Required.
      hidden_dim: Width of all query heads together. Required, unless `dim_per_head` is given and it
        is not read for the scale of queries.
      num_heads: N, at least 1.
      num_kv_heads: K, which divides N.
      dim_per_head: H; None takes `hidden_dim / num_heads`.
      dropout_tpl: Config of the dropout of probabilities. The probability of keeping is filled in.
      atten_dropout_prob: Probability of dropping an attention probability, in training.
      proj_tpl: Config of the projections with heads: of queries, of the output and, for K > 1, of
        keys and values.
      headless_proj_tpl: Config of the projections of keys and values for K = 1.
      use_bias: Whether projections have a bias.
      output_proj_use_nhd_shape: Store the output projection as [N, H, D].
      internal_gshard_gaussian_init: As in `DotProductAttention`.
      internal_enable_query_scale: Whether to scale queries.
      scale_query_by_dim_per_head: The scale is `dim_per_head ** -0.5`, not
        `(hidden_dim / num_heads) ** -0.5`.
      scale_logits_by_head_dims: Multiply the logits by `H ** -0.5`, besides the scale of queries.
      atten_logit_cap: Soft cap of the logits, see `score.cap_logits`; 0 for none.
      attention_extra_logit: Logit of a key of value 0 that all queries see; None for none.
      zero_fully_masked: Make the context of a query that sees no key 0, not the mean of all values.
      local_window_size: (left, right): the query at i sees the keys at i - left to i + right, of
        those that the mask lets it see, also in decoding. None does not limit them.
      chunked_attn_num_seq_split: In calls, cut the queries into so many chunks, and let each see
        the keys up to its own end: less to compute for causal self-attention, for which alone it
        is. The probabilities are then not returned. `implementation` = "blockwise" saves as much,
        and memory.
      use_rotary_position_emb: Rotate queries and keys by position.
      rotary_position_emb_tpl: Config of the rotation. H is filled in.
      relative_bias_tpl: Config of a bias of the logits by relative position. N is filled in.
      ln_tpl: Config of the normalization of queries and keys over H, after the rotation; None for
        none.
      qk_einsum_tpl: Config of the product of queries and keys.
      pv_einsum_tpl: Config of the product of probabilities and values.
      implementation: How calls compute attention, see `attend`: "auto", "reference", "blockwise"
        or "fused".
      consolidate_rope_key_state: Accepted for old configs, and needs `use_rotary_position_emb`.
        Keys are kept once, rotated, in either case.
      combine_qkv: Not for this layer: has to be False.
      dconv_qkv: Not for this layer: has to be False.

    Variables:
      query: as in `AttentionProjection`
      key, value: as in `OneHeadedAttentionProjection` for K = 1, in `AttentionProjection` for more
      post: as in `AttentionProjection`, an output projection
      relative_bias: with `relative_bias_tpl`
      layer_norm_q, layer_norm_k: with `ln_tpl`

    Decode states:
      key_state, value_state: [B, S, H] for K = 1, [B, S, K, H] for more
      held_steps: [B, S], with `decode_cache_window_only`

    Raises:
      ValueError: during setup, if sizes do not go together or options contradict each other; in
        calls, if shapes do not go together.
      TypeError: in calls, if the mask holds integers.
    """

    input_dim: int | Mapping[str, int] = 0
    hidden_dim: int = 0
    num_heads: int = 1
    num_kv_heads: int = 1
    dim_per_head: int | None = None
    dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    atten_dropout_prob: float = 0.0
    proj_tpl: LayerTpl = template_field(projection.AttentionProjection)
    headless_proj_tpl: LayerTpl = template_field(OneHeadedAttentionProjection)
    dconv_qkv: bool = False
    combine_qkv: bool = False
    use_bias: bool = True
    output_proj_use_nhd_shape: bool = False
    internal_gshard_gaussian_init: bool = False
    internal_enable_query_scale: bool = True
    scale_query_by_dim_per_head: bool = False
    scale_logits_by_head_dims: bool = False
    atten_logit_cap: float = 0.0
    attention_extra_logit: float | None = None
    zero_fully_masked: bool = False
    local_window_size: Sequence[int] | None = None
    chunked_attn_num_seq_split: int = 1
    use_rotary_position_emb: bool = False
    rotary_position_emb_tpl: LayerTpl | None = template_field(
        embedding_softmax.RotaryPositionalEmbedding
    )
    relative_bias_tpl: LayerTpl | None = template_field(None)
    ln_tpl: LayerTpl | None = template_field(None)
    qk_einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    pv_einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    implementation: str = "auto"
    consolidate_rope_key_state: bool = False

    # Options of the shared steps that this layer does not have.
    ngrammer_tpl: ClassVar[None] = None
    internal_enable_per_dim_scale: ClassVar[bool] = False
    decoding_maybe_shard_projections: ClassVar[bool] = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          proj: Of the projections with heads, in the order [D, N, H].
          proj_headless: Of those of keys and values for K = 1, [D, H].
          dconv: Not read.
        """

        proj: SplitDimsMapping = None
        proj_headless: SplitDimsMapping = None
        dconv: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          blnh: Of queries and contexts, and keys, values and their cache for K > 1, [B, T, N, H].
          blh: Of keys, values and their cache for K = 1, [B, S, H]; None: as in `blnh`.
          bld: Of the output, [B, T, D].
          bd: Of the output of a decoding step, [B, D]; None: as in `bld`.
        """

        blnh: SplitDimsMapping = None
        blh: SplitDimsMapping = None
        bld: SplitDimsMapping = None
        bd: SplitDimsMapping = None

    @property
    def head_dims(self) -> int:
        """H."""
        return self.dim_per_head or self.hidden_dim // self.num_heads

    def setup(self) -> None:
        self._check_fields()
        widths = options.input_widths(self)
        for name in ("value", "key"):
            self.create_child(name, self._kv_projection(name, widths[name]))
        self.create_child("query", children.input_projection(self, "query", widths["query"]))
        self.create_child("post", children.output_projection(self, widths["query"]))
        if self.use_rotary_position_emb:
            assert self.rotary_position_emb_tpl is not None  # by _check_fields
            rotation = self.rotary_position_emb_tpl.clone().set(embedding_dims=self.head_dims)
            self.create_child("rotary_position_emb", rotation)
        if self.relative_bias_tpl is not None:
            bias = self.relative_bias_tpl.clone().set(num_heads=self.num_heads)
            self.create_child("relative_bias", bias)
        if self.ln_tpl is not None:
            self.create_child("layer_norm_q", self.ln_tpl.clone().set(dim=self.head_dims))
            self.create_child("layer_norm_k", self.ln_tpl.clone().set(dim=self.head_dims))
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
        checks.check_kv_heads(self)
        check_sizes(self, "chunked_attn_num_seq_split")
        for field in ("combine_qkv", "dconv_qkv"):
            if getattr(self, field):
                raise ValueError(
                    f"{self.path_text}: {field} = True is for DotProductAttention; this layer has "
                    "fewer heads of keys and values than of queries. Set it to False."
                )
        self._check_window()
        options.check_whole_probabilities(
            self,
            {
                "atten_dropout_prob": self.atten_dropout_prob > 0.0,
                "qk_einsum_tpl": options.is_injected(self.qk_einsum_tpl),
                "pv_einsum_tpl": options.is_injected(self.pv_einsum_tpl),
            },
        )

    def _check_window(self) -> None:
        window = self.local_window_size
        if window is None:
            if self.decode_cache_window_only:
                raise ValueError(
                    f"{self.path_text}: decode_cache_window_only = True needs a window to keep, "
                    "but local_window_size is None. Set one of them."
                )
            return
        if len(window) != 2 or any(not isinstance(side, int) or side < 0 for side in window):
            raise ValueError(
                f"{self.path_text}: local_window_size is {tuple(window)}, expected (left, right), "
                "the numbers of keys, at least 0, that a query sees before and after its own place."
            )

    def _kv_projection(self, name: str, width: int) -> LayerTpl:
        """Config of the projection of "key" or "value"."""
        if self.num_kv_heads > 1:
            return children.input_projection(self, name, width).set(num_heads=self.num_kv_heads)
        tpl = self.headless_proj_tpl.clone().set(
            input_dim=width, output_dim=self.head_dims, use_bias=self.use_bias
        )
        tpl.weight_split_dims_mapping.wt = self.weight_split_dims_mapping.proj_headless
        if self.internal_gshard_gaussian_init:
            tpl.params_init = WeightInit.Gaussian(width**-0.5)
        return tpl

    def __call__(
        self,
        query_vec: Float[Array, "B T D"],
        key_vec: Float[Array, "B S _"],
        value_vec: Float[Array, "B S _"],
        atten_mask: Mask,
        query_segment_pos: Positions = None,
        key_segment_pos: Int[Array, "_ S"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B N T S"] | None]:
        """Attends from each query to the keys that the mask and the window let it see.

        Args:
          query_vec: [B, T, D].
          key_vec: [B, S, D], or of the width of keys.
          value_vec: [B, S, D], or of the width of values.
          atten_mask: [B, 1, T, S], with 1 for B or T where these share it. Added to the logits: 0
            keeps, large negative hides. Or booleans: True keeps. Or an `AttentionMask`.
          query_segment_pos: [B, T], positions for what depends on them; None: 0 to T - 1.
          key_segment_pos: [B, S], as for queries.

        Returns:
          The outputs [B, T, D], and the probabilities [B, N, T, S], or None where they are not
          computed: by `implementation`, or in chunks.
        """
        query, key, value = self._project(query_vec, key_vec, value_vec)
        split = self.activation_split_dims_mapping
        query = self._shard(query, split.blnh)
        key, value = self._shard_kv(key), self._shard_kv(value)
        full = (query.shape[0], 1, query.shape[1], key.shape[1])
        checks.check_mask(self, atten_mask, full, "[B, 1, T, S]")
        query = self._position(query, query_segment_pos, "q")
        key = self._position(key, key_segment_pos, "k")
        self._store_state("key_state", self._without_single_head(key))
        self._store_state("value_state", self._without_single_head(value))

        query = self._scale_query(query)
        bias = self._bias(query, query_segment_pos, key_segment_pos, key.shape[1])
        mask = self._in_window(atten_mask, *full[2:])
        context, probs = self._attend(query, key, value, mask, bias)
        context = checkpoint_name(self._shard(context, split.blnh), "context")
        output = self._shard(self.post(context), split.bld)
        return checkpoint_name(output, "out_proj"), probs

    def _project(
        self,
        query_vec: Float[Array, "..."],
        key_vec: Float[Array, "..."],
        value_vec: Float[Array, "..."],
    ) -> Heads:
        """Queries [..., N, H], keys and values [..., K, H], of inputs [..., D]."""
        # The width is gathered once, not by each of the three products.
        heads = super()._project(
            *(sharding.shard_one_dim(x, None, -1) for x in (query_vec, key_vec, value_vec))
        )
        return Heads(
            heads.query, self._with_single_head(heads.key), self._with_single_head(heads.value)
        )

    def _with_single_head(self, x: Float[Array, "..."]) -> Float[Array, "*B K H"]:
        """Keys or values as attention reads them: one head has an axis too."""
        return x[..., jnp.newaxis, :] if self.num_kv_heads == 1 else x

    def _without_single_head(self, x: Float[Array, "*B K H"]) -> Float[Array, "..."]:
        """Keys or values as the cache has them: one head has no axis."""
        return x[..., 0, :] if self.num_kv_heads == 1 else x

    # ---- attention in calls ---------------------------------------------------------------------

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S K H"],
        value: Float[Array, "B S K H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        num_chunks = self.chunked_attn_num_seq_split
        if num_chunks == 1:
            return super()._attend(query, key, value, atten_mask, bias)
        length = query.shape[1]
        if length != key.shape[1] or length % num_chunks:
            raise ValueError(
                f"{self.path_text}: chunked_attn_num_seq_split = {num_chunks} is for "
                f"self-attention over a multiple of {num_chunks} positions, but there are "
                f"{length} queries and {key.shape[1]} keys. Set it to 1."
            )
        mask = as_mask(atten_mask, length, length)
        size = length // num_chunks
        contexts = []
        for start in range(0, length, size):
            stop = start + size
            first = 0 if self.local_window_size is None else start - self.local_window_size[0]
            first = max(first, 0)
            part = None
            if bias is not None:
                part = bias[:, :, start:stop] if bias.shape[2] > 1 else bias
                part = part[..., first:stop]
            attended = super()._attend(
                query[:, start:stop],
                key[:, first:stop],
                value[:, first:stop],
                mask.block(start, size, first, stop - first),
                part,
            )
            contexts.append(attended.context)
        return Attended(jnp.concatenate(contexts, axis=1), None)

    # ---- decoding -------------------------------------------------------------------------------

    def _window(self) -> Window | None:
        if self.local_window_size is None:
            return None
        left, right = self.local_window_size
        return left + 1, right  # `Window` counts the place of the query itself.

    def _check_query(self, query_vec: Float[Array, "..."]) -> None:
        if query_vec.ndim not in (2, 3):
            raise ValueError(
                f"{self.path_text}: query_vec has shape {query_vec.shape}, expected [B, D], the "
                "token of one step, or [B, T, D], those of T steps."
            )

    def _read_steps(self) -> tuple[Float[Array, "b S K H"], Float[Array, "b S K H"]]:
        keys, values = super()._read_steps()
        return self._with_single_head(keys), self._with_single_head(values)

    def _write_steps(
        self, key: Float[Array, "..."], value: Float[Array, "..."], time_step: TimeStep
    ) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        keys, values = super()._write_steps(
            self._without_single_head(key), self._without_single_head(value), time_step
        )
        return self._with_single_head(keys), self._with_single_head(values)

    # ---- sharding -------------------------------------------------------------------------------

    def _shard(self, x: Float[Array, "..."], split: SplitDimsMapping) -> Float[Array, "..."]:
        step = self.activation_split_dims_mapping.bd
        # Nothing but the output of a step has two axes.
        return super()._shard(x, step if x.ndim == 2 and step is not None else split)

    def _state_split(self) -> SplitDimsMapping:
        """Sharding of keys and values as the cache has them."""
        split = self.activation_split_dims_mapping
        if self.num_kv_heads > 1:
            return split.blnh
        if split.blh is None and split.blnh is not None:
            return [split.blnh[0], split.blnh[1], split.blnh[3]]
        return split.blh

    def _shard_kv(self, x: Float[Array, "B S K H"]) -> Float[Array, "B S K H"]:
        return self._with_single_head(
            base_layer.maybe_shard(
                self._without_single_head(x), self._state_split(), self.mesh_axis_names
            )
        )

    def _shard_state(self, state: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        split = self._state_split()
        if split is not None and state.shape[-1] == 1:
            split = [*split[:-1], None]  # scales, which have no axis H
        return base_layer.maybe_shard(state, split, self.mesh_axis_names)

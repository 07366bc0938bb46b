"""The steps of attention, each a method that a variant may replace."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer
from praxis.layers.attention import options
from praxis.layers.attention.attend import Attended, as_array, attend
from praxis.layers.attention.attend_cache import Chunk, attend_to_chunks
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.cached import CachedAttention
from praxis.layers.attention.mask_spec import AttentionMask

SplitDimsMapping = base_layer.SplitDimsMapping

Mask = Shaped[Array, "..."] | AttentionMask
Positions = Int[Array, "_ _"] | None


class Heads(NamedTuple):
    """Queries, keys and values; keys and values are None where only a cache of them is read.

    Attributes:
      query: [B, T, N, H].
      key: [B, S, N, H].
      value: [B, S, N, H].
    """

    query: Float[Array, "..."]
    key: Any
    value: Any


class AttentionSteps(CachedAttention):
    """Project, position, scale, bias, attend: the pipeline of `DotProductAttention`, in parts.

    A call is `_project`, `_convolve`, `_position`, `_scale_query`, `_bias`, `_attend` and the child
    `post`. A decoding step has `_bias_of_steps` and `_attend_steps` in place of the last two
    methods. A variant, such as attention with relative positions, replaces the one that it changes
    and leaves the rest. The fields are those of `DotProductAttention`.
    """

    def _project(
        self,
        query_vec: Float[Array, "..."],
        key_vec: Float[Array, "..."],
        value_vec: Float[Array, "..."],
    ) -> Heads:
        """Queries, keys and values of inputs [..., D]."""
        if self.combine_qkv:
            if query_vec is not key_vec or query_vec is not value_vec:
                raise ValueError(
                    f"{self.path_text}: combine_qkv = True is for self-attention, but query_vec, "
                    "key_vec and value_vec are not one and the same array. Pass the same array "
                    "three times, or set combine_qkv to False."
                )
            return Heads(*self.combined_qkv(query_vec))
        return Heads(
            checkpoint_name(self.query(query_vec), "query_proj"),
            checkpoint_name(self.key(key_vec), "key_proj"),
            checkpoint_name(self.value(value_vec), "value_proj"),
        )

    def _convolve(self, heads: Heads, query_pos: Positions, key_pos: Positions) -> Heads:
        """Convolves over time, and keeps what the convolution of later steps reads."""
        self._store_state("query_state", heads.query)
        self._store_state("key_state", heads.key)
        self._store_state("value_state", heads.value)
        return Heads(
            self.dconv_q(heads.query, axis=1, segment_pos=query_pos),
            self.dconv_k(heads.key, axis=1, segment_pos=key_pos),
            self.dconv_v(heads.value, axis=1, segment_pos=key_pos),
        )

    def _position(
        self, x: Float[Array, "B T N H"], position: Positions, side: str
    ) -> Float[Array, "B T N H"]:
        """Rotates queries (`side` "q") or keys ("k") by position, then normalises them over H."""
        if self.use_rotary_position_emb:
            x = self.rotary_position_emb(x, position)
        return self._normalise(x, side)

    def _normalise(self, x: Float[Array, "*B H"], side: str) -> Float[Array, "*B H"]:
        """Normalises queries or keys over H, if asked for."""
        if self.ln_tpl is None:
            return x
        return self.layer_norm_q(x) if side == "q" else self.layer_norm_k(x)

    def _scale_query(self, query: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
        """Scales queries before they meet keys."""
        if not self.internal_enable_query_scale:
            return query
        if self.internal_enable_per_dim_scale:
            return self.per_dim_scale(query)
        dims = self.hidden_dim // self.num_heads
        if self.scale_query_by_dim_per_head or not dims:
            dims = self.head_dims
        return query * dims**-0.5

    def _bias(
        self,
        query: Float[Array, "B T N H"],
        query_pos: Positions,
        key_pos: Positions,
        source_len: int,
    ) -> Float[Array, "..."] | None:
        """What is added to the logits of a call, [B, N, T, S] with 1 for what is shared.

        Args:
          query: Scaled, for a bias that depends on it.
          query_pos: [B, T]; None: 0 to T - 1.
          key_pos: [B, S]; None: 0 to S - 1.
          source_len: S.
        """
        if self.relative_bias_tpl is None:
            return None
        if query_pos is None:
            query_pos = jnp.arange(query.shape[1])[jnp.newaxis]
        if key_pos is None:
            key_pos = jnp.arange(source_len)[jnp.newaxis]
        return self.relative_bias(query_pos, key_pos)

    def _bias_of_steps(
        self, query: Float[Array, "B T N H"], time_step: TimeStep, source_len: int
    ) -> Float[Array, "..."] | None:
        """As `_bias`, for T decoding steps from `time_step` on and a cache of S steps."""
        if self.relative_bias_tpl is None:
            return None
        if hasattr(self.relative_bias, "at_step"):
            return self.relative_bias.at_step(source_len, time_step, query.shape[1])
        return self.relative_bias.extend_step(seq_length=source_len, time_step=time_step)

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S K H"],
        value: Float[Array, "B S K H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        """Scores scaled queries, masks, normalises and averages the values."""
        return attend(
            query,
            key,
            value,
            atten_mask,
            bias=bias,
            dropout=self.atten_dropout if options.drops(self) else None,
            implementation=self.implementation,
            need_probs=self.ngrammer_tpl is not None,
            **self._score_options(),
        )

    def _attend_steps(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b S K H"],
        value: Float[Array, "b S K H"],
        atten_mask: Shaped[Array, "..."],
        bias: Float[Array, "..."] | None,
        time_step: TimeStep,
    ) -> Attended:
        """As `_attend`, from decoding steps to a cache, of whose rows B / b queries share one."""
        del time_step  # For variants that read only a part of the cache.
        chunks = [Chunk(key, value)]
        return attend_to_chunks(query, chunks, atten_mask, bias=bias, **self._score_options())

    def _score_options(self) -> dict[str, Any]:
        """Arguments that `attend` and `attend_to_chunks` have in common."""
        # Called as functions where nothing is injected: then attention may go without them.
        injected = options.is_injected
        return {
            "cap": self.atten_logit_cap,
            "extra_logit": self.attention_extra_logit,
            "logits_scale": self.head_dims**-0.5 if self.scale_logits_by_head_dims else 1.0,
            "zero_fully_masked": self.zero_fully_masked,
            "qk_einsum": self.qk_einsum if injected(self.qk_einsum_tpl) else jnp.einsum,
            "pv_einsum": self.pv_einsum if injected(self.pv_einsum_tpl) else jnp.einsum,
            "observe_logits": self._summarise_logits,
        }

    def _summarise_logits(self, logits: Float[Array, "..."]) -> None:
        """Reports the logits before the cap, where all of them are computed at once."""
        self.add_summary("max_logit_precap", lambda: jnp.max(logits), verbosity=4)
        self.add_summary(
            "rms_logits_precap",
            lambda: jnp.sqrt(jnp.mean(jnp.square(logits.astype(jnp.float32)))),
            verbosity=4,
        )

    def _summarise_mask(self, atten_mask: Mask) -> None:
        self.add_summary(
            "attention_mask",
            lambda: jnp.moveaxis(as_array(atten_mask), 1, -1).astype(jnp.float32),
            base_layer.SummaryType.IMAGE,
            verbosity=4,
        )

    def _shard(self, x: Shaped[Array, "..."], split: SplitDimsMapping) -> Shaped[Array, "..."]:
        """Shards [B, T, ...], or [B, ...] of one decoding step, by a mapping for [B, T, ...]."""
        if split is not None and len(split) == x.ndim + 1:
            split = [split[0], *split[2:]]
        return base_layer.maybe_shard(x, split, self.mesh_axis_names)

    def _shard_state(self, state: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        split = self.activation_split_dims_mapping.blnh
        if split is not None and len(split) == state.ndim and state.shape[-1] == 1:
            split = [*split[:-1], None]  # scales, which have no axis H
        return self._shard(state, split)

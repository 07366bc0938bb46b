"""Grouped-query attention with projections whose initializers see their true fans."""

from typing import Any

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import einsum, sharding
from praxis.layers.attention import checks, options
from praxis.layers.attention.attend import Attended, as_array, attend
from praxis.layers.attention.attend_cache import Chunk, attend_to_chunks, mask_of_steps
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.cached import CachedAttention
from praxis.layers.attention.hidden_masks import apply_dropout, apply_rope
from praxis.layers.attention.hooks import Heads
from praxis.layers.attention.mask_spec import AttentionMask
from praxis.layers.checks import check_last_axis, check_sizes

SplitDimsMapping = base_layer.SplitDimsMapping
Mask = Shaped[Array, "..."] | AttentionMask


class GroupedQueryAttention(CachedAttention):
    """Attention in which groups of query heads share a head of keys and values.

    Ainslie et al., "GQA", 2023, arXiv:2305.13245. Shapes: D is `input_dim`, N is `num_heads`, K is
    `num_kv_heads`, G = N / K, H is `dim_per_head`.

    In the masks of this layer True, or any number but 0, hides a key, see `hidden_masks`.

    Attributes:
      input_dim: D, at least 1. Required.
      hidden_dim: Not read; transformer layers set it.
      num_heads: N, at least 1.
      num_kv_heads: K, which divides N.
      dim_per_head: H, at least 1. Required.
      atten_dropout_prob: Probability of dropping an attention probability, in training.
      atten_logit_cap: Soft cap of the logits, see `score.cap_logits`; 0 for none.
      atten_temp: Temperature, which divides the logits; above 0.
      use_bias: Whether projections have a bias.
      rope_min_max_timescales: Shortest and longest period over 2 pi of the rotation of queries and
        keys by position, tokens; None does not rotate.
      implementation: How calls compute attention, see `attend`: "auto", "reference", "blockwise"
        or "fused".

    Variables:
      query/w, post/w: [D, N, H]
      key/w, value/w: [D, K, H], or [D, H] for K = 1
      query/b: [N, H], key/b, value/b: [K, H], or [H] for K = 1, post/b: [D]; with `use_bias`

    Decode states:
      key_state: [B, S, K, H], rotated
      value_state: [B, S, K, H]

    Raises:
      ValueError: during setup, if sizes do not go together or options contradict each other; in
        calls, if shapes do not go together.

    Example:
      >>> import jax
      >>> config = pax_fiddle.Config(
      ...     GroupedQueryAttention, input_dim=6, num_heads=4, num_kv_heads=2, dim_per_head=3
      ... )
      >>> layer = pax_fiddle.build(config)
      >>> x, position = jnp.ones([2, 5, 6]), jnp.arange(5)[jnp.newaxis]
      >>> hidden = jnp.zeros([1, 1, 5, 5], bool)
      >>> variables = layer.init(jax.random.PRNGKey(0), x, x, x, hidden, position, position)
      >>> layer.apply(variables, x, x, x, hidden, position, position)[0].shape
      (2, 5, 6)
    """

    input_dim: int = 0
    hidden_dim: int = 0
    num_heads: int = 1
    num_kv_heads: int = 1
    dim_per_head: int = 0
    atten_dropout_prob: float = 0.0
    atten_logit_cap: float = 0.0
    atten_temp: float = 1.0
    use_bias: bool = True
    rope_min_max_timescales: tuple[int, int] | None = None
    implementation: str = "auto"

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          dnh: Of query and post, [D, N, H].
          dkh: Of key and value, [D, K, H]; None takes `dnh`.
        """

        dnh: SplitDimsMapping = None
        dkh: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          btd: Of inputs and outputs, [B, T, D].
          btnh: Of queries and contexts, [B, T, N, H].
          bskh: Of keys, values and their cache, [B, S, K, H].
        """

        btd: SplitDimsMapping = None
        btnh: SplitDimsMapping = None
        bskh: SplitDimsMapping = None

    def setup(self) -> None:
        self._check_fields()
        split = self.weight_split_dims_mapping
        heads = (self.num_heads, self.dim_per_head)
        kv_heads, kv_letters = (self.num_kv_heads, self.dim_per_head), "KH"
        kv_split = split.dnh if split.dkh is None else split.dkh
        if self.num_kv_heads == 1:
            kv_heads, kv_letters = kv_heads[1:], "H"
            kv_split = sharding.derive(kv_split, "DKH->DH")
        self._create_projection("query", "...D,DNH->...NH", heads, split.dnh)
        for name in ("key", "value"):
            self._create_projection(
                name, f"...D,D{kv_letters}->...{kv_letters}", kv_heads, kv_split
            )
        self._create_projection("post", "...NH,DNH->...D", heads, split.dnh)

    def _check_fields(self) -> None:
        check_sizes(self, "input_dim", "num_heads", "num_kv_heads", "dim_per_head")
        checks.check_kv_heads(self)
        checks.check_score_fields(self)
        self._check_cache_fields()
        if self.atten_temp <= 0.0:
            raise ValueError(
                f"{self.path_text}: atten_temp is {self.atten_temp}, expected a temperature above "
                "0, by which logits are divided."
            )
        if self.rope_min_max_timescales is not None and self.dim_per_head % 2:
            raise ValueError(
                f"{self.path_text}: dim_per_head is {self.dim_per_head}, but "
                "rope_min_max_timescales rotates pairs of features: expected an even number."
            )
        dropout = {"atten_dropout_prob": self.atten_dropout_prob > 0.0}
        options.check_whole_probabilities(self, dropout)

    def _create_projection(
        self, name: str, eqn: str, heads: tuple[int, ...], split: SplitDimsMapping
    ) -> None:
        tpl = pax_fiddle.Config(
            einsum.Einsum, eqn=eqn, w_shape=(self.input_dim, *heads), use_bias=self.use_bias
        )
        tpl.weight_split_dims_mapping.wt = split
        self.create_child(name, tpl)

    def __call__(
        self,
        query_vec: Float[Array, "B T D"],
        key_vec: Float[Array, "B S D"],
        value_vec: Float[Array, "B S D"],
        atten_mask: Mask,
        query_segment_pos: Int[Array, "_ T"] | None = None,
        key_segment_pos: Int[Array, "_ S"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B K G T S"] | None]:
        """Attends from each query to the keys that the mask does not hide.

        Args:
          query_vec: [B, T, D].
          key_vec: [B, S, D].
          value_vec: [B, S, D].
          atten_mask: [B, 1, T, S], with 1 for B or T where these share it: True, or any number but
            0, hides. Or an `AttentionMask`.
          query_segment_pos: [B, T], positions for the rotation; None: 0 to T - 1.
          key_segment_pos: [B, S], as for queries.

        Returns:
          The outputs [B, T, D], and the probabilities [B, K, G, T, S], or None where
          `implementation` does not compute them.
        """
        query, key, value = self._project(query_vec, key_vec, value_vec)
        query, key = self._rotate(query, query_segment_pos), self._rotate(key, key_segment_pos)
        self._store_state("key_state", key)
        self._store_state("value_state", value)
        lengths = (query.shape[1], key.shape[1])
        mask = self._keep(atten_mask, (query.shape[0], 1, *lengths), "[B, 1, T, S]")
        context, probs = self._attend(query, key, value, mask)
        if probs is not None:
            groups = (self.num_kv_heads, self.num_heads // self.num_kv_heads)
            probs = probs.reshape(probs.shape[0], *groups, *lengths)
        return self._project_back(context), probs

    def _project(
        self,
        query_vec: Float[Array, "..."],
        key_vec: Float[Array, "..."],
        value_vec: Float[Array, "..."],
    ) -> Heads:
        """Scaled queries [..., N, H], keys and values [..., K, H], of inputs [..., D]."""
        query = checkpoint_name(self.query(self._input(query_vec)), "query_proj")
        query = self._shard_heads(query, "btnh")
        query *= self.dim_per_head**-0.5 / self.atten_temp
        key, value = (
            checkpoint_name(project(self._input(x)), name)
            for project, x, name in (
                (self.key, key_vec, "key_proj"),
                (self.value, value_vec, "value_proj"),
            )
        )
        if self.num_kv_heads == 1:
            key, value = key[..., jnp.newaxis, :], value[..., jnp.newaxis, :]
        return Heads(query, self._shard_heads(key, "bskh"), self._shard_heads(value, "bskh"))

    def _input(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        check_last_axis(self, x, "input_dim")
        x = self._cast_to_fprop_dtype(x)
        return sharding.shard(x, self.activation_split_dims_mapping.btd, "btd->b[t]d")

    def _shard_heads(self, x: Float[Array, "..."], field: str) -> Float[Array, "..."]:
        """Shards [B, T, N, H], or [B, N, H] of one decoding step, by a mapping for the former."""
        mapping = getattr(self.activation_split_dims_mapping, field)
        return sharding.shard(x, mapping, f"{field}->b[{field[1]}]{field[2:]}")

    def _shard_state(self, state: Shaped[Array, "B S K _"]) -> Shaped[Array, "B S K _"]:
        mapping = self.activation_split_dims_mapping.bskh
        if state.shape[-1] == 1:
            mapping = sharding.derive(mapping, "bskh->bsk?")  # scales, which have no axis H
        return sharding.shard(state, mapping)

    def _rotate(
        self, x: Float[Array, "B T _ H"], position: Int[Array, "_ T"] | None
    ) -> Float[Array, "B T _ H"]:
        if self.rope_min_max_timescales is None:
            return x
        return apply_rope(x, *self.rope_min_max_timescales, position)

    def _keep(self, atten_mask: Mask, full: tuple[int, ...], letters: str) -> Any:
        """The mask as `attend` reads it, where True attends."""
        if isinstance(atten_mask, AttentionMask):
            checks.check_mask(self, atten_mask, full, letters)
            return atten_mask
        # Numbers count by their being 0 or not, integers too.
        keep = ~atten_mask.astype(jnp.bool)
        checks.check_mask(self, keep, full, letters)
        return keep

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S K H"],
        value: Float[Array, "B S K H"],
        mask: Any,
    ) -> Attended:
        drops = self.atten_dropout_prob > 0.0 and not self.do_eval
        return attend(
            query,
            key,
            value,
            mask,
            cap=self.atten_logit_cap,
            dropout=self._drop if drops else None,
            implementation=self.implementation,
        )

    def _drop(self, probs: Float[Array, "B N T S"]) -> Float[Array, "B N T S"]:
        return apply_dropout(probs, self.next_prng_key(), self.atten_dropout_prob)

    def _project_back(self, context: Float[Array, "..."]) -> Float[Array, "..."]:
        context = checkpoint_name(self._shard_heads(context, "btnh"), "context")
        output = self.post(context)
        output = sharding.shard(output, self.activation_split_dims_mapping.btd, "btd->b[t]d")
        return checkpoint_name(output, "out_proj")

    def extend_decode_state(
        self, name: str, value: Float[Array, "..."], time_step: TimeStep, time_dim: int = 1
    ) -> Float[Array, "B S K H"]:
        """Writes one step, [B, K, H], or several, [B, T, K, H], into a decode state, in place."""
        return super().extend_decode_state(name, value, time_step, time_dim)

    def extend_step(
        self,
        query_vec: Float[Array, "..."],
        *,
        atten_mask: Mask,
        time_step: TimeStep,
        segment_pos: Int[Array, "..."] | None,
        is_cross_attention: bool = False,
    ) -> Float[Array, "..."]:
        """Attends from one decoding step, or several, to the cache.

        Args:
          query_vec: [B, D], or [B, T, D] for T steps.
          atten_mask: [B, 1, S], or [B, 1, T, S], with 1 for B or T where shared; as in `__call__`.
          time_step: Where the first step goes in the cache.
          segment_pos: [B] or [B, T], positions for the rotation; None: `time_step` and the next.
          is_cross_attention: Only read the cache.

        Returns:
          Of the shape of `query_vec`.
        """
        if query_vec.ndim not in (2, 3):
            raise ValueError(
                f"{self.path_text}: query_vec has shape {query_vec.shape}, expected [B, D], the "
                "token of one step, or [B, T, D], those of T steps."
            )
        self._check_cache_batch(query_vec.shape[0])
        is_one = query_vec.ndim == 2
        steps = query_vec[:, jnp.newaxis] if is_one else query_vec
        num_steps = steps.shape[1]
        position = (time_step + jnp.arange(num_steps))[jnp.newaxis]
        if segment_pos is not None:
            position = segment_pos.reshape(segment_pos.shape[0], -1)  # [B, T]
        query, key, value = self._project(steps, steps, steps)
        query = self._rotate(query, position)
        if is_cross_attention:
            keys, values = self._read_state("key_state"), self._read_state("value_state")
        else:
            key = self._rotate(key, position)
            keys = self.extend_decode_state("key_state", key, time_step)
            values = self.extend_decode_state("value_state", value, time_step)
        mask = atten_mask
        if not isinstance(mask, AttentionMask) and is_one:
            mask = mask_of_steps(mask)
        full = (query.shape[0], 1, num_steps, keys.shape[1])
        mask = as_array(self._keep(mask, full, "[B, 1, T, S]"))
        chunks = [Chunk(keys, values)]
        context, _ = attend_to_chunks(query, chunks, mask, cap=self.atten_logit_cap)
        return self._project_back(context[:, 0] if is_one else context)

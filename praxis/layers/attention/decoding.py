"""Decoding steps of attention: project a token, write it into the cache, attend to the cache."""

import inspect
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from praxis.layers.attention import checks
from praxis.layers.attention.attend import as_array
from praxis.layers.attention.attend_cache import mask_of_steps
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.hooks import AttentionSteps, Heads, Mask
from praxis.layers.attention.mask_spec import AttentionMask

StepPositions = Int[Array, "..."] | None


class AttentionDecoding(AttentionSteps):
    """The part of `DotProductAttention` that decodes, with the steps of `AttentionSteps`."""

    @property
    def _key_name(self) -> str:
        """The state of the keys that attention reads: rotated and normalised."""
        return "key_post_dconv" if self.dconv_qkv else "key_state"

    @property
    def _value_name(self) -> str:
        """The state of the values that attention reads."""
        return "value_post_dconv" if self.dconv_qkv else "value_state"

    def extend_step(
        self,
        query_vec: Float[Array, "..."],
        *,
        atten_mask: Mask,
        time_step: TimeStep,
        segment_pos: StepPositions,
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
        self._check_query(query_vec)
        heads = self._project_steps(query_vec, is_cross_attention)
        if self.dconv_qkv:
            heads = self._convolve_step(heads, time_step, segment_pos)
        query = self._position_steps(heads.query, time_step, segment_pos, "q")
        if is_cross_attention:
            keys, values = self._read_steps()
        else:
            key = self._position_steps(heads.key, time_step, segment_pos, "k")
            keys, values = self._write_steps(key, heads.value, time_step)
        mask = self._mask_of_steps(query_vec, keys, atten_mask)

        several = query if query.ndim == 4 else query[:, jnp.newaxis]  # [B, T, N, H]
        several = self._scale_query(several)
        bias = self._bias_of_steps(several, time_step, mask.shape[-1])
        context, probs = self._attend_steps(several, keys, values, mask, bias, time_step)
        context = context.reshape(*query.shape[:-1], -1)
        context = self._shard(context, self.activation_split_dims_mapping.blnh)
        if self.ngrammer_tpl is not None:
            context = self._apply_ngrammer(context, probs, time_step, segment_pos)
        return self._shard(self.post(context), self.activation_split_dims_mapping.bld)

    def _check_query(self, query_vec: Float[Array, "..."]) -> None:
        """Refuses what is not one token for each example."""
        if query_vec.ndim != 2:
            raise ValueError(
                f"{self.path_text}: query_vec has shape {query_vec.shape}, expected [B, D], the "
                "token of one step."
            )

    def _project_steps(self, query_vec: Float[Array, "..."], is_cross_attention: bool) -> Heads:
        """Queries, keys and values of steps; of queries alone for cross-attention."""
        if not is_cross_attention:
            heads = self._project(query_vec, query_vec, query_vec)
        elif self.combine_qkv:
            raise ValueError(
                f"{self.path_text}: combine_qkv = True is for self-attention, but extend_step got "
                "is_cross_attention = True. Set combine_qkv to False."
            )
        else:
            heads = Heads(self.query(query_vec), None, None)
        if not self.decoding_maybe_shard_projections:
            return heads
        blnh = self.activation_split_dims_mapping.blnh
        key, value = (None if x is None else self._shard(x, blnh) for x in heads[1:])
        return Heads(self._shard(heads.query, blnh), key, value)

    def _convolve_step(
        self, heads: Heads, time_step: TimeStep, segment_pos: StepPositions
    ) -> Heads:
        """Writes what is projected into the cache, and convolves up to `time_step`."""
        convolved = []
        for name, x in zip(("query", "key", "value"), heads, strict=True):
            if x is not None:
                state = self.extend_decode_state(f"{name}_state", x, time_step, time_dim=1)
                convolution = getattr(self, f"dconv_{name[0]}")
                x = convolution.extend_step(state, axis=1, step=time_step, segment_pos=segment_pos)
            convolved.append(x)
        return Heads(*convolved)

    def _position_steps(
        self,
        x: Float[Array, "..."],
        time_step: TimeStep,
        segment_pos: StepPositions,
        side: str,
    ) -> Float[Array, "..."]:
        """As `_position`, of one step, [B, N, H], or of several from `time_step` on."""
        if x.ndim == 4 and segment_pos is None:
            segment_pos = jnp.arange(x.shape[1])[jnp.newaxis] + time_step
        if x.ndim == 4:
            return self._position(x, segment_pos, side)
        if self.use_rotary_position_emb:
            position = time_step if segment_pos is None else segment_pos
            x = self.rotary_position_emb.extend_step(x, position)
        return self._normalise(x, side)

    def _write_steps(
        self, key: Float[Array, "..."], value: Float[Array, "..."], time_step: TimeStep
    ) -> tuple[Float[Array, "B S *K H"], Float[Array, "B S *K H"]]:
        """Writes keys and values at `time_step`, and returns all of them."""
        self._check_cache_batch(key.shape[0])
        return (
            self.extend_decode_state(self._key_name, key, time_step, time_dim=1),
            self.extend_decode_state(self._value_name, value, time_step, time_dim=1),
        )

    def _read_steps(self) -> tuple[Float[Array, "b S *K H"], Float[Array, "b S *K H"]]:
        """Keys and values in the cache."""
        return self._read_state(self._key_name), self._read_state(self._value_name)

    def _mask_of_steps(
        self, query_vec: Float[Array, "..."], keys: Float[Array, "b S _ _"], atten_mask: Mask
    ) -> Any:
        """The mask as an array, [B, 1, T, S] with 1 or b for B and 1 for T."""
        batch, rows = query_vec.shape[0], keys.shape[0]
        if batch % rows:
            raise ValueError(
                f"{self.path_text}: the cache has a batch of {rows}, but extend_step got a batch "
                f"of {batch}, which is not a multiple of it."
            )
        mask_rows = rows if atten_mask.shape[0] == rows else batch
        source_len = self._num_cached_steps(keys)
        if query_vec.ndim == 2 and not isinstance(atten_mask, AttentionMask):
            full, letters = (mask_rows, 1, source_len), "[B, 1, S]"
        else:
            target_len = query_vec.shape[1] if query_vec.ndim == 3 else 1
            full, letters = (mask_rows, 1, target_len, source_len), "[B, 1, T, S]"
        checks.check_mask(self, atten_mask, full, letters)
        return mask_of_steps(as_array(atten_mask))

    def _num_cached_steps(self, keys: Float[Array, "b S _ _"]) -> int:
        """S, of what a step attends to."""
        return keys.shape[1]

    def _apply_ngrammer(
        self,
        context: Float[Array, "B N H"],
        probs: Any,
        time_step: TimeStep,
        segment_pos: StepPositions,
    ) -> Float[Array, "B N H"]:
        """Adds n-grams of contexts up to `time_step`."""
        state = self.extend_decode_state("encoded_pre_ngrammer", context, time_step, time_dim=1)
        position = {}
        # The published signature has no positions, and layers of users may keep to it.
        if "segment_pos" in inspect.signature(self.ngrammer.extend_step).parameters:
            position = {"segment_pos": segment_pos}
        return self.ngrammer.extend_step(
            state,
            step=time_step,
            merge_heads=False,
            attention_score=probs[:, :, 0],
            **position,
        )

"""Decoding of several samples that continue one prompt, whose cache they share.

"LPB" is lazy prefix broadcast: the cache of the prompt is not repeated for each sample. Each call
of `lazy_broadcast_prefix` freezes the cache as one more prefix and starts an empty one for the
samples, so that states are

  prefix 0: [B, P_0, ...], prefix 1: [B, n_0, P_1, ...], ..., suffix: [B, n_0, n_1, ..., L, ...]

with n_i samples of each row of prefix i. Inputs of steps have a batch of B n_0 n_1 ..., in this
order; masks and time steps count from the start of prefix 0.
"""

import math
import re
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers.attention.attend import Attended
from praxis.layers.attention.attend_cache import Chunk, attend_to_chunks
from praxis.layers.attention.cache import SCALE_SUFFIX, TimeStep, decode_state
from praxis.layers.attention.cached import CachedAttention
from praxis.layers.attention.decoding import StepPositions
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.hooks import Mask

PREFIX_DECODE_CACHE = base_layer.PREFIX_DECODE_CACHE
DecodeStateTransformFn = base_layer.DecodeStateTransformFn


def prefix_name(state: str, index: int) -> str:
    """The name of a state of a prefix."""
    return f"{state}_{index}_pfx"


# A base that was a layer would bring the defaults of its own fields over those of the attention.
_CachedAttention = CachedAttention if TYPE_CHECKING else object


class SharedPrefixes(_CachedAttention):
    """A cache in parts: prefixes, which samples share, and a suffix of each sample.

    Comes before an attention layer among the bases of a class.
    """

    def _num_prefixes(self) -> int:
        """How often `lazy_broadcast_prefix` was called."""
        names = self.variables.get(PREFIX_DECODE_CACHE, {})
        return sum(re.fullmatch(r"key_state_\d+_pfx", name) is not None for name in names)

    def _read_prefix(self, name: str, index: int) -> Shaped[Array, "..."]:
        return self.get_variable(PREFIX_DECODE_CACHE, prefix_name(name, index))

    def _prefix_length(self) -> int:
        """The number of steps of all prefixes."""
        return sum(
            self._read_prefix("key_state", index).shape[index + 1]
            for index in range(self._num_prefixes())
        )

    def _write_suffix(
        self, name: str, value: Float[Array, "..."], time_step: TimeStep
    ) -> Float[Array, "..."]:
        """Writes one step, or several, and returns the whole suffix, [B', L, ...].

        Args:
          name: Of the state.
          value: [B', ...] or [B', T, ...], where B' counts the samples too.
          time_step: Counted from the start of the first prefix.
        """
        num_prefixes = self._num_prefixes()
        state = self.get_decode_state(name)
        samples = state.shape[: num_prefixes + 1]
        if value.shape[0] != math.prod(samples):
            raise ValueError(
                f"{self.path_text}: the cache has shape {state.shape}, so a batch of "
                f"{math.prod(samples)} with samples, but extend_step got a batch of "
                f"{value.shape[0]}. Repeat the tokens for each sample, in rows."
            )
        state = self.extend_decode_state(
            name,
            value.reshape(*samples, *value.shape[1:]),
            time_step - self._prefix_length(),
            time_dim=num_prefixes + 1,
        )
        return _merge_samples(state, num_prefixes)

    def _prefix_chunks(self, key_name: str, value_name: str) -> list[Chunk]:
        """Keys and values of each prefix, [B', P_i, ...], where B' counts the samples too."""
        return [
            Chunk(self._prefix(key_name, index), self._prefix(value_name, index))
            for index in range(self._num_prefixes())
            if self._read_prefix(key_name, index).shape[index + 1]  # not moved to the suffix
        ]

    def _prefix(self, name: str, index: int) -> Float[Array, "..."]:
        """A state of a prefix, as attention reads it."""
        state, scale = self._read_prefix(name, index), None
        if self.decode_cache_dtype is not None:
            if jnp.dtype(self.decode_cache_dtype) == jnp.int8:
                scale = self._read_prefix(name + SCALE_SUFFIX, index)
            state = decode_state(state, scale, self._state_dtype)
        return _merge_samples(state, index)

    def _shard_state(self, state: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Shards a state with the samples as a part of the batch."""
        merged = _merge_samples(state, self._num_prefixes())
        return super()._shard_state(merged).reshape(state.shape)

    def decoding_state_sequence_length(self) -> int:
        """The number of time steps of all prefixes and of the suffix."""
        suffix = self.get_decode_state("key_state").shape[self._num_prefixes() + 1]
        return self._prefix_length() + suffix

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Freezes the cache as a prefix, and starts an empty one for samples that continue it.

        The collections `decoder_cache` and `prefix_decoder_cache` have to be mutable.

        Args:
          num_suffix_samples: Samples that continue each row of the cache.
          suffix_length: Steps of them.
        """
        if num_suffix_samples < 1 or suffix_length < 1:
            raise ValueError(
                f"{self.path_text}: lazy_broadcast_prefix got num_suffix_samples = "
                f"{num_suffix_samples} and suffix_length = {suffix_length}, expected at least 1."
            )
        index = self._num_prefixes()
        for name, state in self._decode_states().items():
            self.put_variable(PREFIX_DECODE_CACHE, prefix_name(name, index), state)
            shape = (
                *state.shape[: index + 1],
                num_suffix_samples,
                suffix_length,
                *state.shape[index + 2 :],
            )
            self.update_decode_state(name, jnp.zeros(shape, state.dtype))

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the suffix by `transform_fn(array, batch_dim=0, time_dim)`.

        The time axis comes after the axes of samples, one for each prefix.
        """
        time_dim = self._num_prefixes() + 1
        for name, state in self._decode_states().items():
            self.update_decode_state(name, transform_fn(state, 0, time_dim))

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """Moves the end of the prefixes into the suffix, and aligns the result.

        The suffix becomes the last `max_prefix_size` steps of the prefixes and the old suffix,
        after `right_align_fn(array, batch_dim=0, time_dim=1)`; the prefixes become empty.

        Args:
          max_prefix_size: Steps of the prefixes to keep.
          right_align_fn: Gets arrays [B', S, ...], where B' counts the samples too.
        """
        num_prefixes = self._num_prefixes()
        for name, state in self._decode_states().items():
            samples = state.shape[: num_prefixes + 1]
            rows = math.prod(samples)
            parts = []
            for index in range(num_prefixes):
                prefix = self._read_prefix(name, index)
                merged = _merge_samples(prefix, index)
                parts.append(jnp.repeat(merged, rows // merged.shape[0], axis=0))
                empty = jnp.zeros(
                    (*prefix.shape[: index + 1], 0, *prefix.shape[index + 2 :]), prefix.dtype
                )
                self.put_variable(PREFIX_DECODE_CACHE, prefix_name(name, index), empty)
            suffix = _merge_samples(state, num_prefixes)
            if parts:
                whole = jnp.concatenate(parts, axis=1)
                kept = whole[:, max(whole.shape[1] - max_prefix_size, 0) :]
                suffix = jnp.concatenate([kept, suffix], axis=1)
            aligned = right_align_fn(suffix, 0, 1)
            self.update_decode_state(name, aligned.reshape(*samples, *aligned.shape[1:]))


def _merge_samples(state: Shaped[Array, "..."], num_samples: int) -> Shaped[Array, "..."]:
    """Makes one axis of the batch and of `num_samples` axes after it."""
    lead, rest = state.shape[: num_samples + 1], state.shape[num_samples + 1 :]
    return state.reshape(math.prod(lead), *rest)


class DotProductAttentionWithLPB(SharedPrefixes, DotProductAttention):
    """`DotProductAttention` whose samples share the cache of a prompt.

    Variables and calls are those of `DotProductAttention`. Steps may be several at once.

    Raises:
      NotImplementedError: during setup, with `dconv_qkv`; in `lazy_broadcast_prefix`, with
        `ngrammer_tpl`.
    """

    def _check_fields(self) -> None:
        super()._check_fields()
        if self.dconv_qkv:
            raise NotImplementedError(
                f"{self.path_text}: dconv_qkv = True: the convolution does not read across a "
                "shared prefix. Take DotProductAttention, or set dconv_qkv to False."
            )

    def extend_step(
        self,
        query_vec: Float[Array, "..."],
        *,
        atten_mask: Mask,
        time_step: TimeStep,
        segment_pos: StepPositions,
        is_cross_attention: bool = False,
    ) -> Float[Array, "..."]:
        """Attends from one decoding step, or several, to the prefixes and the suffix.

        Args:
          query_vec: [B, D], or [B, T, D] for T steps. B counts the samples too.
          atten_mask: [B, 1, S], or [B, 1, T, S], with 1 for B or T where shared. S counts the steps
            of all prefixes and of the suffix.
          time_step: Where the first step goes, counted from the start of the first prefix.
          segment_pos: [B] or [B, T], positions for the rotation; None: `time_step` and the next.
          is_cross_attention: Only read the cache; as in `DotProductAttention`.

        Returns:
          [B, D] or [B, T, D].
        """
        return super().extend_step(
            query_vec,
            atten_mask=atten_mask,
            time_step=time_step,
            segment_pos=segment_pos,
            is_cross_attention=is_cross_attention,
        )

    def _check_query(self, query_vec: Float[Array, "..."]) -> None:
        if query_vec.ndim not in (2, 3):
            raise ValueError(
                f"{self.path_text}: query_vec has shape {query_vec.shape}, expected [B, D], the "
                "token of one step, or [B, T, D]."
            )

    def _write_steps(
        self, key: Float[Array, "..."], value: Float[Array, "..."], time_step: TimeStep
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return (
            self._write_suffix(self._key_name, key, time_step),
            self._write_suffix(self._value_name, value, time_step),
        )

    def _num_cached_steps(self, keys: Float[Array, "b S _ _"]) -> int:
        return self._prefix_length() + keys.shape[1]

    def _attend_steps(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b S N H"],
        value: Float[Array, "b S N H"],
        atten_mask: Shaped[Array, "..."],
        bias: Float[Array, "..."] | None,
        time_step: TimeStep,
    ) -> Attended:
        del time_step
        chunks = [*self._prefix_chunks(self._key_name, self._value_name), Chunk(key, value)]
        return attend_to_chunks(query, chunks, atten_mask, bias=bias, **self._score_options())

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """As in `SharedPrefixes`; not with an n-grammer, which reads across the prefix."""
        if self.ngrammer_tpl is not None:
            raise NotImplementedError(
                f"{self.path_text}: lazy_broadcast_prefix({num_suffix_samples}, {suffix_length}): "
                "ngrammer_tpl reads contexts of earlier steps, which a shared prefix keeps apart. "
                "Repeat the cache for each sample, with transform_decode_state."
            )
        super().lazy_broadcast_prefix(num_suffix_samples, suffix_length)

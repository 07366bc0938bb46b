"""The decoding cache of an attention layer: one mechanism, which all of them inherit."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers.attention.cache import (
    SCALE_SUFFIX,
    TimeStep,
    decode_state,
    encode_state,
    is_cache_dtype,
    write_steps,
)

SplitDimsMapping = base_layer.SplitDimsMapping
DecodeStateTransformFn = base_layer.DecodeStateTransformFn


class CachedAttention(base_layer.BaseLayer):
    """An attention layer that keeps keys and values of a sequence for decoding.

    States are batch major, [B, S, ...], in the collection `decoder_cache`. The length of
    "key_state" is how many steps the cache has room for.

    Attributes:
      decode_cache: Whether calls keep keys and values for decoding.
      decode_cache_dtype: Type in which they are kept: None as they are computed; a floating type,
        e.g. bfloat16; or int8, with a float32 scale for each vector under the name of the state
        and "_scale".
    """

    decode_cache: bool = True
    decode_cache_dtype: DTypeLike | None = None

    def _check_cache_fields(self) -> None:
        """Refuses a dtype in which nothing can be kept."""
        if not is_cache_dtype(self.decode_cache_dtype):
            raise ValueError(
                f"{self.path_text}: decode_cache_dtype is {self.decode_cache_dtype}, expected "
                "None, a floating dtype such as bfloat16, or int8."
            )

    def _shard_state(self, state: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Shards a state, or its scales; a subclass knows how."""
        return state

    def _store_state(self, name: str, value: Float[Array, "..."]) -> None:
        """Keeps a state of a whole sequence, [B, S, ..., H], if the layer keeps any."""
        if not self.decode_cache:
            return
        for key, stored in encode_state(name, value, self.decode_cache_dtype).items():
            self.update_decode_state(key, stored)

    def _read_state(self, name: str) -> Float[Array, "..."]:
        """A state as attention reads it."""
        stored = self.get_decode_state(name)
        if self.decode_cache_dtype is None:
            return stored
        scale = None
        if jnp.dtype(self.decode_cache_dtype) == jnp.int8:
            scale = self.get_decode_state(name + SCALE_SUFFIX)
        return decode_state(stored, scale, self._state_dtype)

    @property
    def _state_dtype(self) -> DTypeLike:
        """The dtype in which attention reads states that are kept in another one."""
        return self.dtype if self.fprop_dtype is None else self.fprop_dtype

    def extend_decode_state(
        self, name: str, value: Float[Array, "..."], time_step: TimeStep, time_dim: int
    ) -> Float[Array, "..."]:
        """Writes one step, or several, into a decode state, in place.

        Args:
          name: Of the state.
          value: [B, ..., H], or [B, T, ..., H].
          time_step: Where the first step goes.
          time_dim: The time axis of the state.

        Returns:
          The new state, as attention reads it.
        """
        for key, steps in encode_state(name, value, self.decode_cache_dtype).items():
            state = write_steps(self.get_decode_state(key), steps, time_step, time_dim)
            self.update_decode_state(key, self._shard_state(state))
        if not self.is_mutable_collection(base_layer.DECODE_CACHE):
            return write_steps(self._read_state(name), value, time_step, time_dim)
        return self._read_state(name)

    def _check_cache_batch(self, batch: int) -> None:
        """Refuses steps for another number of examples than the cache has."""
        cached = self.get_decode_state("key_state").shape
        if cached[0] != batch:
            raise ValueError(
                f"{self.path_text}: the cache has shape {cached}, so a batch of {cached[0]}, but "
                f"extend_step got a batch of {batch}. Repeat the cache first, with "
                "transform_decode_state."
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

    def _decode_states(self) -> Mapping[str, Any]:
        """All states of this layer, by name."""
        states = self.variables.get(base_layer.DECODE_CACHE, {})
        return {name: state for name, state in states.items() if not isinstance(state, Mapping)}

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the cache by `transform_fn(array, batch_dim=0, time_dim=1)`."""
        for name, state in self._decode_states().items():
            self.update_decode_state(name, transform_fn(state, 0, 1))

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

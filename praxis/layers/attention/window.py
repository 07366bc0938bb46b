"""Attention of decoding steps to the keys near them."""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis.layers.attention.attend import Attended
from praxis.layers.attention.attend_cache import Chunk, attend_to_chunks
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.decoding import AttentionDecoding
from praxis.layers.attention.hooks import Mask
from praxis.layers.attention.mask_spec import Window, as_mask, narrower
from praxis.layers.attention.masks import keep_from_mask
from praxis.layers.attention.window_cache import WindowCachedAttention


class WindowAttention(WindowCachedAttention, AttentionDecoding):
    """The part of an attention layer that decodes where a window limits what is seen.

    A step reads the window of the cache and no more, or the ring with the last steps.
    """

    def _window(self) -> Window | None:
        """(left, right): the query r sees the keys c with r - left < c <= r + right.

        As in `AttentionMask`: None in either place is unlimited, and so is None for both.
        """
        raise NotImplementedError(f"{type(self).__name__}._window: to be overridden.")

    def _bias_by_distance(
        self, query: Float[Array, "B T N H"], ahead: Int[Array, " S"]
    ) -> Float[Array, "_ N T S"] | None:
        """What a variant adds to the logits by the distance of query and key.

        Args:
          query: Scaled, at successive positions.
          ahead: Positions of keys minus that of the first query. Successive if T is above 1.
        """
        del query, ahead
        return None

    def _window_steps(self) -> int | None:
        window = self._window()
        return None if window is None else window[0]

    def _check_window_cache(self) -> None:
        """Refuses `decode_cache_window_only` where there is no window, or more than it is read."""
        if not self.decode_cache_window_only:
            return
        if self._window_steps() is None:
            raise ValueError(
                f"{self.path_text}: decode_cache_window_only = True needs a window to keep, but "
                "left_context is None. Set one of them."
            )
        if self.dconv_qkv or self.ngrammer_tpl is not None:
            field = "dconv_qkv" if self.dconv_qkv else "ngrammer_tpl"
            raise ValueError(
                f"{self.path_text}: decode_cache_window_only = True contradicts {field}, which "
                "reads more of the cache than keys and values. Set one of them to False or None."
            )

    def _in_window(self, atten_mask: Mask, target_len: int, source_len: int) -> Mask:
        """The mask that hides what is outside of the window too."""
        window = self._window()
        if window is None:
            return atten_mask
        mask = as_mask(atten_mask, target_len, source_len)
        return dataclasses.replace(mask, window=narrower(mask.window, window))

    def _read_steps(self) -> tuple[Float[Array, "b S *K H"], Float[Array, "b S *K H"]]:
        if self._has_ring():
            raise ValueError(
                f"{self.path_text}: extend_step got is_cross_attention = True, but the cache keeps "
                "a window alone. Set decode_cache_window_only to False for cross-attention."
            )
        return super()._read_steps()

    def _write_steps(
        self, key: Float[Array, "..."], value: Float[Array, "..."], time_step: TimeStep
    ) -> tuple[Float[Array, "B S *K H"], Float[Array, "B S *K H"]]:
        if not self._has_ring():
            return super()._write_steps(key, value, time_step)
        self._check_cache_batch(key.shape[0])
        return (
            self._extend_ring("key_state", key, time_step),
            self._extend_ring("value_state", value, time_step),
        )

    def _num_cached_steps(self, keys: Float[Array, "b S K H"]) -> int:
        del keys  # They may be those of a ring.
        return self.decoding_state_sequence_length()

    def _attend_steps(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b S K H"],
        value: Float[Array, "b S K H"],
        atten_mask: Shaped[Array, "..."],
        bias: Float[Array, "..."] | None,
        time_step: TimeStep,
    ) -> Attended:
        window = self._window()
        if window is None:
            return super()._attend_steps(query, key, value, atten_mask, bias, time_step)
        left, right = window
        num_steps, source_len = query.shape[1], key.shape[1]
        held = None
        if self._has_ring():
            steps, held = self._ring_view(time_step, num_steps)
        elif left is None or right is None:
            steps = jnp.arange(source_len)
        else:
            # Reading the cache takes most of the time of a step, so only the window is read.
            size = min(left - 1 + num_steps + right, source_len)
            start = jnp.clip(time_step - left + 1, 0, source_len - size)
            key = lax.dynamic_slice_in_dim(key, start, size, axis=1)
            value = lax.dynamic_slice_in_dim(value, start, size, axis=1)
            steps = start + jnp.arange(size)
        # Steps below 0, of a ring that is not full, are not held.
        keep = jnp.take(keep_from_mask(atten_mask), steps, axis=3, mode="clip")
        if held is not None:
            keep &= held[:, jnp.newaxis, jnp.newaxis]
        keep &= self._is_near(steps, time_step, num_steps)
        if bias is not None:
            bias = jnp.take(bias, steps, axis=3, mode="clip")
        bias = add_biases(bias, self._bias_by_distance(query, steps - time_step))
        return self._attend_to_window(query, key, value, keep, bias)

    def _attend_to_window(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b S K H"],
        value: Float[Array, "b S K H"],
        keep: Bool[Array, "_ _ T S"],
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        """As `_attend_steps`, to the keys that the window leaves, with the bias of these."""
        return attend_to_chunks(
            query, [Chunk(key, value)], keep, bias=bias, **self._score_options()
        )

    def _is_near(
        self, steps: Int[Array, " S"], time_step: TimeStep, num_steps: int
    ) -> Bool[Array, "1 1 T S"]:
        """Whether keys at some steps are in the window of queries from `time_step` on."""
        left, right = self._window() or (None, None)
        query = time_step + jnp.arange(num_steps)
        ahead = steps[jnp.newaxis] - query[:, jnp.newaxis]  # [T, S]
        near = jnp.ones(ahead.shape, jnp.bool)
        if left is not None:
            near &= ahead > -left
        if right is not None:
            near &= ahead <= right
        return near[jnp.newaxis, jnp.newaxis]


def add_biases(
    a: Float[Array, "_ _ _ _"] | None, b: Float[Array, "_ _ _ _"] | None
) -> Float[Array, "_ _ _ _"] | None:
    """The sum of two biases of logits, [B, N, T, S] with 1 for what is shared; None is 0."""
    if a is None or b is None:
        return b if a is None else a
    return jnp.add(*jnp.broadcast_arrays(a, b))

"""Multi-query attention whose samples share the cache of a prompt."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis.layers.attention.attend import Attended
from praxis.layers.attention.attend_cache import Chunk, attend_to_chunks
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.masks import keep_from_mask
from praxis.layers.attention.multi_query import MultiQueryDotProductAttention
from praxis.layers.attention.prefix import SharedPrefixes


class MultiQueryDotProductAttentionLPB(SharedPrefixes, MultiQueryDotProductAttention):
    """`MultiQueryDotProductAttention` with lazy prefix broadcast, see `SharedPrefixes`.

    Variables and calls are those of `MultiQueryDotProductAttention`. In steps the batch counts the
    samples too, and masks and time steps count from the start of the first prefix.

    Raises:
      NotImplementedError: during setup, with `decode_cache_window_only`.
    """

    def _check_fields(self) -> None:
        super()._check_fields()
        if self.decode_cache_window_only:
            raise NotImplementedError(
                f"{self.path_text}: decode_cache_window_only = True: a prefix that samples share "
                "is kept whole. Take MultiQueryDotProductAttention, or set it to False."
            )

    def _write_steps(
        self, key: Float[Array, "..."], value: Float[Array, "..."], time_step: TimeStep
    ) -> tuple[Float[Array, "B L K H"], Float[Array, "B L K H"]]:
        key, value = self._without_single_head(key), self._without_single_head(value)
        return (
            self._with_single_head(self._write_suffix("key_state", key, time_step)),
            self._with_single_head(self._write_suffix("value_state", value, time_step)),
        )

    def _attend_steps(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b L K H"],
        value: Float[Array, "b L K H"],
        atten_mask: Shaped[Array, "..."],
        bias: Float[Array, "..."] | None,
        time_step: TimeStep,
    ) -> Attended:
        chunks = [
            Chunk(*(self._with_single_head(x) for x in chunk))
            for chunk in self._prefix_chunks("key_state", "value_state")
        ]
        if self.local_window_size is not None:
            steps = jnp.arange(atten_mask.shape[3])
            near = self._is_near(steps, time_step, query.shape[1])
            atten_mask = keep_from_mask(atten_mask) & near
        chunks.append(Chunk(key, value))
        return attend_to_chunks(query, chunks, atten_mask, bias=bias, **self._score_options())

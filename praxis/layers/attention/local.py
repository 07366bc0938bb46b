"""Self-attention to near keys, in blocks: time and memory linear in the length."""

from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Shaped

from praxis.layers.attention.attend import Attended
from praxis.layers.attention.blocks import (
    blocks_of_mask,
    convert_to_block,
    extract_block_context,
)
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.hooks import Mask, Positions
from praxis.layers.attention.mask_spec import Window, as_mask
from praxis.layers.attention.window import WindowAttention, add_biases
from praxis.layers.checks import check_sizes


class BlockSizes(NamedTuple):
    """How a sequence is cut.

    Attributes:
      block_size: W, queries.
      left_context: Keys up to the query, itself included.
      right_context: Keys after the query.
    """

    block_size: int
    left_context: int
    right_context: int

    @property
    def width(self) -> int:
        """C, the keys that the queries of a block see together."""
        return self.block_size + self.left_context - 1 + self.right_context


class LocalSelfAttention(DotProductAttention, WindowAttention):
    """Self-attention in which the query at i sees the keys at i - l + 1 to i + r.

    Of those, the ones that the mask lets it see. The queries are cut into U blocks of W, and each
    block is attended like an example of its own, to C = W + l - 1 + r keys: with T positions it
    takes T C logits a head, not T T. A mask by rules (`AttentionMask`) or by key is never made T by
    T either. Otherwise as `DotProductAttention`, `implementation` included, which is then about
    the attention within a block. Decoding steps read l + r steps of the cache.

    Attributes:
      block_size: W, at least 1; None: the smallest one, max(1, r, l - 1).
      left_context: l, keys up to the query, itself included; 1 to W + 1. None, for no limit, with
        `simulated` alone.
      right_context: r, keys after the query; 0 to W. None as for `left_context`.
      simulated: Attend to all keys, with a mask: for comparisons, and for windows about as long as
        the sequence. `block_size` is then not read by the attention.
      decode_cache_window_only: Keep the last l steps in the cache alone, and not all. See
        `WindowCachedAttention`. Not with `dconv_qkv` or `ngrammer_tpl`.

    Decode states:
      as in `DotProductAttention`; and held_steps, [B, S], with `decode_cache_window_only`

    Raises:
      ValueError: during setup, if the sizes are missing or do not go together; in calls without
        `simulated`, if there are not as many keys as queries.
    """

    block_size: int | None = None
    left_context: int | None = None
    right_context: int | None = None
    simulated: bool = False

    @property
    def _block_sizes(self) -> BlockSizes:
        left, right = self.left_context, self.right_context
        assert left is not None and right is not None  # by _check_context
        return BlockSizes(self.block_size or max(1, right, left - 1), left, right)

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check_context("left_context", 1)
        self._check_context("right_context", 0)
        if self.block_size is not None:
            check_sizes(self, "block_size")
        if not self.simulated:
            size, left, right = self._block_sizes
            if left > size + 1 or right > size:
                raise ValueError(
                    f"{self.path_text}: block_size = {size} is too small for left_context = {left} "
                    f"and right_context = {right}, which may be block_size + 1 and block_size. Set "
                    f"it to {max(right, left - 1)} or more, or to None."
                )
        self._check_window_cache()

    def _check_context(self, field: str, least: int) -> None:
        size = getattr(self, field)
        if size is None and self._needs_context():
            raise ValueError(
                f"{self.path_text}: {field} is None, expected at least {least}. Attention in "
                "blocks is limited on both sides; no limit is for LocalSelfAttention and "
                "LocalSelfAttentionXL with simulated = True."
            )
        if size is not None and size < least:
            raise ValueError(f"{self.path_text}: {field} is {size}, expected at least {least}.")

    def _needs_context(self) -> bool:
        """Whether both contexts have to be numbers."""
        return not self.simulated

    def _window(self) -> Window | None:
        return self.left_context, self.right_context

    # ---- attention in calls ---------------------------------------------------------------------

    def _bias(
        self,
        query: Float[Array, "B T N H"],
        query_pos: Positions,
        key_pos: Positions,
        source_len: int,
    ) -> Float[Array, "..."] | None:
        if self.simulated:
            bias = super()._bias(query, query_pos, key_pos, source_len)
            return add_biases(bias, self._bias_by_distance(query, jnp.arange(source_len)))
        self._check_self_attention(query.shape[1], source_len)
        sizes = self._block_sizes
        ahead = jnp.arange(sizes.width) - (sizes.left_context - 1)
        by_distance = self._bias_by_distance(self._query_blocks(query), ahead)
        return add_biases(self._relative_bias_of_blocks(query, query_pos, key_pos), by_distance)

    def _relative_bias_of_blocks(
        self, query: Float[Array, "B T N H"], query_pos: Positions, key_pos: Positions
    ) -> Float[Array, "_ N W C"] | None:
        """The child `relative_bias` of each block, [B U, N, W, C], or [1, N, W, C] of all."""
        if self.relative_bias_tpl is None:
            return None
        sizes = self._block_sizes
        by_place = (query_pos is None and key_pos is None) or getattr(
            self.relative_bias, "use_length_as_position", False
        )
        if by_place and hasattr(self.relative_bias, "at_step"):
            # Distances are the same in all blocks: the first query is at left_context - 1.
            first = sizes.left_context - 1
            return self.relative_bias.at_step(sizes.width, first, sizes.block_size)
        batch, length = query.shape[:2]
        places = jnp.arange(length)[jnp.newaxis]
        query_pos, key_pos = (
            jnp.broadcast_to(places if x is None else x, [batch, length])
            for x in (query_pos, key_pos)
        )
        return self.relative_bias(
            rearrange(convert_to_block(query_pos, sizes.block_size, 0), "b u w -> (b u) w"),
            rearrange(extract_block_context(key_pos, *sizes, 0), "b u c -> (b u) c"),
        )

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S N H"],
        value: Float[Array, "B S N H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        """Attends in blocks; the probabilities are [B, N, U, W, C]."""
        batch, length = query.shape[:2]
        if self.simulated:
            mask = self._in_window(atten_mask, length, key.shape[1])
            return super()._attend(query, key, value, mask, bias)
        keep = blocks_of_mask(as_mask(atten_mask, length, length), *self._block_sizes)
        keep = jnp.broadcast_to(keep, [batch, *keep.shape[1:]])
        context, probs = super()._attend(
            self._query_blocks(query),
            self._context_blocks(key),
            self._context_blocks(value),
            rearrange(keep, "b n u w c -> (b u) n w c"),
            bias,
        )
        context = rearrange(context, "(b u) w n h -> b (u w) n h", b=batch)[:, :length]
        if probs is not None:
            probs = rearrange(probs, "(b u) n w c -> b n u w c", b=batch)
        return Attended(context, probs)

    def _query_blocks(self, x: Shaped[Array, "B T N H"]) -> Shaped[Array, "_ W N H"]:
        """Queries in blocks, each of which counts as an example: [B U, W, N, H]."""
        return rearrange(
            convert_to_block(x, self._block_sizes.block_size), "b u w n h -> (b u) w n h"
        )

    def _context_blocks(self, x: Shaped[Array, "B T N H"]) -> Shaped[Array, "_ C N H"]:
        """Keys or values that the queries of each block see: [B U, C, N, H]."""
        return rearrange(extract_block_context(x, *self._block_sizes), "b u c n h -> (b u) c n h")

    def _check_self_attention(self, target_len: int, source_len: int) -> None:
        if target_len != source_len:
            raise ValueError(
                f"{self.path_text}: there are {target_len} queries and {source_len} keys, but "
                "attention in blocks is self-attention. Pass as many keys, or set simulated to "
                "True."
            )

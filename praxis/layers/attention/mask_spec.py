"""A mask as the rules that make it: any block of it can be computed, and the whole need not exist.

A mask of T queries and S keys as an array costs B T S numbers, which for long sequences is more
than all activations of a layer; its rules cost B (T + S).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Shaped

from praxis.layers.attention import masks

Window = tuple[int | None, int | None]
Position = Any  # int, or a traced scalar of integers

_ARRAYS = (
    "query_offset",
    "query_segment_ids",
    "key_segment_ids",
    "query_paddings",
    "key_paddings",
    "visible_keys",
    "dense",
)
_STATICS = ("target_len", "source_len", "causal", "window")


class KeyRange(NamedTuple):
    """Keys `start` to `stop - 1`."""

    start: Position
    stop: Position


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionMask:
    """Which keys each query sees: those that no rule hides.

    Position of query i is `query_offset + i`, of key j it is j. A tree whose leaves are the arrays.

    Attributes:
      target_len: T, number of queries.
      source_len: S, number of keys.
      causal: Keys after the query are hidden, but for `visible_keys`.
      window: (left, right): the key c is seen by the query r if r - left < c <= r + right, as in
        `masks.limited_context_mask`; None in either place is unlimited.
      query_offset: Position of the first query, a scalar.
      query_segment_ids: [B, T], in packed rows; queries see keys of their own segment alone. Given
        if and only if `key_segment_ids` are.
      key_segment_ids: [B, S].
      query_paddings: [B, T], 1 marks queries that see nothing.
      key_paddings: [B, S], 1 marks keys that nobody sees.
      visible_keys: [B, S], True for keys that `causal` does not hide: a prefix.
      dense: A mask as an array, [B, N, T, S] with 1 for a size where it is shared; additive, or
        booleans with True for attending.
    """

    target_len: int
    source_len: int
    causal: bool = False
    window: Window | None = None
    query_offset: Any = 0
    query_segment_ids: Any = None
    key_segment_ids: Any = None
    query_paddings: Any = None
    key_paddings: Any = None
    visible_keys: Any = None
    dense: Any = None

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """The arrays by name, and the rest."""
        arrays = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in _ARRAYS]
        return arrays, tuple(getattr(self, name) for name in _STATICS)

    @classmethod
    def tree_unflatten(cls, statics: Any, arrays: Any) -> "AttentionMask":
        """The inverse of `tree_flatten_with_keys`; the leaves may be anything."""
        return cls(
            **dict(zip(_STATICS, statics, strict=True)), **dict(zip(_ARRAYS, arrays, strict=True))
        )

    @classmethod
    def from_array(
        cls, mask: Shaped[Array, "_ _ _ S"], target_len: int, source_len: int
    ) -> "AttentionMask":
        """A mask that is an array already, additive or boolean.

        Raises:
          ValueError: if its shape is none of a mask for these lengths.
        """
        shape = mask.shape
        if len(shape) != 4 or shape[2] not in (1, target_len) or shape[3] != source_len:
            raise ValueError(
                f"The attention mask has shape {shape}, expected [B, N, T, S] with T = "
                f"{target_len} queries (or 1) and S = {source_len} keys."
            )
        if shape[1] == shape[2] == 1:
            hidden = ~masks.keep_from_mask(mask)[:, 0, 0]
            return cls(target_len=target_len, source_len=source_len, key_paddings=hidden)
        return cls(target_len=target_len, source_len=source_len, dense=mask)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of `materialise`: [B, N, T, S], with 1 for B, N or T that share a mask."""
        by_batch = [x for x in self._by_query() + self._by_key() if x is not None]
        lead = 1 if self.dense is None else self.dense.shape[0]
        heads = 1 if self.dense is None else self.dense.shape[1]
        batch = max([lead, *(x.shape[0] for x in by_batch)])
        return batch, heads, self.target_len if self._tells_queries_apart() else 1, self.source_len

    def has_no_arrays(self) -> bool:
        """Whether `causal` and `window` are the only rules, and positions start at 0."""
        arrays = [getattr(self, name) for name in _ARRAYS if name != "query_offset"]
        is_zero = isinstance(self.query_offset, int) and self.query_offset == 0
        return is_zero and all(x is None for x in arrays)

    def _by_query(self) -> list[Any]:
        return [self.query_segment_ids, self.query_paddings]

    def _by_key(self) -> list[Any]:
        return [self.key_segment_ids, self.key_paddings, self.visible_keys]

    def _tells_queries_apart(self) -> bool:
        return (
            self.causal
            or self.window is not None
            or any(x is not None for x in self._by_query())
            or (self.dense is not None and self.dense.shape[2] > 1)
        )

    def merge(self, other: "AttentionMask") -> "AttentionMask":
        """Hides what either mask hides, as `masks.merge_masks` does.

        If only one of them tells queries apart, the other one, by key, also hides the queries of
        hidden keys: a padded query sees nothing. That needs T = S.

        Raises:
          ValueError: if the masks are for different lengths, or their queries start at different
            positions.
        """
        if (self.target_len, self.source_len) != (other.target_len, other.source_len):
            raise ValueError(
                f"AttentionMask.merge: one mask is for T = {self.target_len} and S = "
                f"{self.source_len}, the other for T = {other.target_len} and S = "
                f"{other.source_len}, expected the same lengths."
            )
        a, b = self, other
        if a._tells_queries_apart() != b._tells_queries_apart():
            a, b = a._hide_queries_of_hidden_keys(), b._hide_queries_of_hidden_keys()
        if a.query_segment_ids is not None and b.query_segment_ids is not None:
            b = b._with_dense_segments()
        has_segments = a if a.query_segment_ids is not None else b
        return AttentionMask(
            target_len=a.target_len,
            source_len=a.source_len,
            causal=a.causal or b.causal,
            window=narrower(a.window, b.window),
            query_offset=_same_offset(a, b),
            query_segment_ids=has_segments.query_segment_ids,
            key_segment_ids=has_segments.key_segment_ids,
            query_paddings=either_padded(a.query_paddings, b.query_paddings),
            key_paddings=either_padded(a.key_paddings, b.key_paddings),
            visible_keys=_visible_in_both(a, b),
            dense=_dense_of_both(a.dense, b.dense),
        )

    def _hide_queries_of_hidden_keys(self) -> "AttentionMask":
        if self._tells_queries_apart() or (self.key_paddings is None and self.dense is None):
            return self
        if self.target_len != self.source_len:
            raise ValueError(
                f"AttentionMask.merge: T = {self.target_len} and S = {self.source_len}. A mask by "
                "key can be merged with one for each query only if there are as many queries as "
                "keys."
            )
        dense = self.dense
        if dense is not None:
            keep = masks.keep_from_mask(dense)
            dense = keep & jnp.swapaxes(keep, 2, 3)
        return dataclasses.replace(self, query_paddings=self.key_paddings, dense=dense)

    def _with_dense_segments(self) -> "AttentionMask":
        """The same mask, with segments as an array."""
        assert self.query_segment_ids is not None and self.key_segment_ids is not None
        same = (
            self.query_segment_ids[:, jnp.newaxis, :, jnp.newaxis]
            == (self.key_segment_ids[:, jnp.newaxis, jnp.newaxis, :])
        )
        dense = _dense_of_both(self.dense, same)
        return dataclasses.replace(self, query_segment_ids=None, key_segment_ids=None, dense=dense)

    def materialise(self, dtype: DTypeLike = jnp.float32) -> Float[Array, "_ _ _ S"]:
        """The mask as an additive array, as the functions of `masks` make it.

        Args:
          dtype: Of the mask.

        Returns:
          [B, N, T, S], with 1 for B, N or T where these share it.
        """
        num_queries = self.shape[2]
        keep = self.block(0, num_queries, 0, self.source_len)
        return masks.mask_from_keep(jnp.broadcast_to(keep, self.shape), dtype)

    def block(
        self, query_start: Position, query_len: int, key_start: Position, key_len: int
    ) -> Bool[Array, "_ _ _ _"]:
        """Whether some queries, in succession, see some keys.

        Args:
          query_start: Index of the first query, which may be traced.
          query_len: t, their number.
          key_start: Index of the first key, which may be traced.
          key_len: s, their number.

        Returns:
          [B, N, t, s], with 1 for a size where it is shared.
        """

        def queries(x: Array) -> Array:  # [B, 1, t, 1]
            return _slice(x, 1, query_start, query_len)[:, jnp.newaxis, :, jnp.newaxis]

        def keys(x: Array) -> Array:  # [B, 1, 1, s]
            return _slice(x, 1, key_start, key_len)[:, jnp.newaxis, jnp.newaxis, :]

        keep = jnp.ones([1, 1, 1, 1], jnp.bool)
        ahead = self._keys_ahead(query_start, query_len, key_start, key_len)  # [1, 1, t, s]
        if self.causal:
            seen = ahead <= 0
            if self.visible_keys is not None:
                seen |= keys(self.visible_keys)
            keep &= seen
        if self.window is not None:
            left, right = self.window
            keep = keep if left is None else keep & (ahead > -left)
            keep = keep if right is None else keep & (ahead <= right)
        if self.query_segment_ids is not None:
            keep &= queries(self.query_segment_ids) == keys(self.key_segment_ids)
        if self.query_paddings is not None:
            keep &= ~queries(_is_padding(self.query_paddings))
        if self.key_paddings is not None:
            keep &= ~keys(_is_padding(self.key_paddings))
        if self.dense is not None:
            dense = _slice(self.dense, 3, key_start, key_len)
            if dense.shape[2] > 1:
                dense = _slice(dense, 2, query_start, query_len)
            keep &= masks.keep_from_mask(dense)
        return keep

    def _keys_ahead(
        self, query_start: Position, query_len: int, key_start: Position, key_len: int
    ) -> Array:
        """By how much the position of a key is larger than that of a query, [1, 1, t, s]."""
        shape = (1, 1, query_len, key_len)
        key = jax.lax.broadcasted_iota(jnp.int32, shape, 3) + key_start
        return key - jax.lax.broadcasted_iota(jnp.int32, shape, 2) - query_start - self.query_offset

    def key_range(self, query_start: Position, query_len: int) -> KeyRange:
        """Keys outside of which some queries, in succession, see none.

        It comes of `causal` and `window` alone; `start` is not above `stop`.

        Args:
          query_start: Index of the first query, which may be traced.
          query_len: Their number.
        """
        first = query_start + self.query_offset
        last = first + query_len - 1
        start, stop = jnp.int32(0), jnp.int32(self.source_len)
        if self.causal:
            unseen = last + 1
            if self.visible_keys is not None:
                indices = jnp.arange(1, self.source_len + 1)[jnp.newaxis]
                visible_stop = jnp.max(jnp.where(self.visible_keys, indices, 0))
                unseen = jnp.maximum(unseen, visible_stop)
            stop = jnp.minimum(stop, unseen)
        if self.window is not None:
            left, right = self.window
            start = start if left is None else jnp.maximum(start, first - left + 1)
            stop = stop if right is None else jnp.minimum(stop, last + right + 1)
        stop = jnp.maximum(stop, 0)
        return KeyRange(jnp.minimum(start, stop), stop)


# What layers take: an array [B, N, T, S], additive or boolean, or its rules.
Mask = Shaped[Array, "..."] | AttentionMask


def as_mask(mask: Any, target_len: int, source_len: int) -> AttentionMask:
    """The lazy form of any mask.

    Raises:
      ValueError: if the mask is for other lengths.
    """
    if mask is None:
        return AttentionMask(target_len=target_len, source_len=source_len)
    if not isinstance(mask, AttentionMask):
        return AttentionMask.from_array(mask, target_len, source_len)
    if (mask.target_len, mask.source_len) != (target_len, source_len):
        raise ValueError(
            f"The attention mask is for T = {mask.target_len} queries and S = {mask.source_len} "
            f"keys, but there are {target_len} queries and {source_len} keys."
        )
    return mask


def _slice(x: Array, axis: int, start: Position, length: int) -> Array:
    """Part of an axis; the whole axis is returned as it is."""
    if length == x.shape[axis]:
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, length, axis)


def _is_padding(paddings: Array) -> Array:
    return paddings if paddings.dtype == jnp.bool else paddings > 0.5


def either_padded(a: Array | None, b: Array | None) -> Array | None:
    """Paddings of the same places, joined: padded where either is."""
    if a is None or b is None:
        return b if a is None else a
    return _is_padding(a) | _is_padding(b)


def _dense_of_both(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return masks.keep_from_mask(a) & masks.keep_from_mask(b)


def _visible_in_both(a: AttentionMask, b: AttentionMask) -> Array | None:
    """Keys that no causal rule of two masks hides."""
    visible = [mask.visible_keys for mask in (a, b) if mask.causal]
    if any(keys is None for keys in visible) or not visible:
        return None
    return visible[0] if len(visible) == 1 else visible[0] & visible[1]


def narrower(a: Window | None, b: Window | None) -> Window | None:
    """What two windows both show."""
    if a is None or b is None:
        return b if a is None else a
    sides = [[size for size in pair if size is not None] for pair in zip(a, b, strict=True)]
    left, right = (min(sizes) if sizes else None for sizes in sides)
    return left, right


def _same_offset(a: AttentionMask, b: AttentionMask) -> Position:
    """The position of the first query, which two masks have to agree on if both read it."""
    reading = [mask for mask in (a, b) if mask.causal or mask.window is not None]
    offsets = [mask.query_offset for mask in reading]
    if len(offsets) == 2 and offsets[0] is not offsets[1] and offsets[0] != offsets[1]:
        raise ValueError(
            f"AttentionMask.merge: query_offset is {offsets[0]} in one mask and {offsets[1]} in "
            "the other, expected the same."
        )
    return offsets[0] if offsets else a.query_offset

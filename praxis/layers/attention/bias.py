"""Learned bias of attention logits by the distance of key and query."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from praxis import base_layer
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_sizes

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams


def relative_buckets(
    ahead: Int[Array, "..."], *, num_buckets: int, max_distance: int, bidirectional: bool
) -> Int[Array, "..."]:
    """Sorts relative positions into buckets: near ones exactly, far ones by their logarithm.

    Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
    Transformer", 2019, arXiv:1910.10683, section 2.1.

    Args:
      ahead: Position of the key minus that of the query, tokens.
      num_buckets: All of them; half of them are for keys after the query if `bidirectional`.
      max_distance: Distance from which on everything is in the last bucket, tokens.
      bidirectional: Whether keys after the query have buckets of their own; else they share that
        of distance 0.

    Returns:
      Buckets from 0 to `num_buckets` - 1.
    """
    if bidirectional:
        num_buckets //= 2
        first = jnp.where(ahead > 0, num_buckets, 0)
        distance = jnp.abs(ahead)
    else:
        first = jnp.zeros_like(ahead)
        distance = jnp.maximum(-ahead, 0)
    num_exact = num_buckets // 2
    # At least 1 inside the logarithm, also where the exact bucket is taken.
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / num_exact
    share = jnp.log(ratio) / math.log(max_distance / num_exact)
    far = num_exact + jnp.floor(share * (num_buckets - num_exact)).astype(ahead.dtype)
    far = jnp.minimum(far, num_buckets - 1)
    return first + jnp.where(distance < num_exact, distance, far)


class RelativeBias(base_layer.BaseLayer):
    """Adds to the logit of a query and a key a number that depends on head and distance.

    See `relative_buckets`. Shapes: N is `num_heads`, R is `relative_attention_num_buckets`.

    Attributes:
      num_heads: N, at least 1.
      relative_attention_num_buckets: R; at least 2, or 4 and even if `bidirectional`.
      relative_attention_max_distance: Distance of the last bucket, tokens; above half of the
        buckets of one direction.
      bidirectional: Whether keys after the query have buckets of their own.
      use_length_as_position: Positions are 0, 1, ... in the row, not those of the call. In packed
        rows whose segments are contiguous both give the same distances within a segment.
      use_xavier_init: Start as the default initializer does, not as normal numbers with standard
        deviation (N R)^-0.5.

    Variables:
      wrb: [N, R]

    Raises:
      ValueError: during setup, if sizes do not go together; in calls, if positions are missing.
    """

    num_heads: int = 1
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    bidirectional: bool = False
    use_length_as_position: bool = True
    use_xavier_init: bool = False

    def setup(self) -> None:
        check_sizes(self, "num_heads", "relative_attention_num_buckets")
        num_buckets = self.relative_attention_num_buckets
        directions = 2 if self.bidirectional else 1
        if num_buckets < 2 * directions or num_buckets % directions:
            raise ValueError(
                f"{self.path_text}: relative_attention_num_buckets is {num_buckets}, expected "
                + ("an even number, at least 4" if self.bidirectional else "at least 2")
                + f", with bidirectional = {self.bidirectional}."
            )
        num_exact = num_buckets // directions // 2
        if self.relative_attention_max_distance <= num_exact:
            raise ValueError(
                f"{self.path_text}: relative_attention_max_distance is "
                f"{self.relative_attention_max_distance}, but distances below {num_exact} have "
                f"exact buckets, with relative_attention_num_buckets = {num_buckets}. Set it above "
                f"{num_exact}."
            )
        init = None
        if not self.use_xavier_init:
            init = WeightInit.Gaussian((self.num_heads * num_buckets) ** -0.5)
        self.create_variable("wrb", WeightHParams(shape=[self.num_heads, num_buckets], init=init))

    def __call__(
        self,
        query_segment_pos: Int[Array, "B T"] | None,
        key_segment_pos: Int[Array, "_ S"] | None = None,
    ) -> Float[Array, "_ N T S"]:
        """The bias of each query and key.

        Args:
          query_segment_pos: [B, T], tokens.
          key_segment_pos: [B, S]; None takes those of the queries.

        Returns:
          [B, N, T, S], with 1 for B where positions are those in the row.
        """
        if query_segment_pos is None:
            raise ValueError(
                f"{self.path_text}: query_segment_pos is None, expected positions, [B, T]. For "
                "those in the row pass jnp.arange(T)[jnp.newaxis]."
            )
        if key_segment_pos is None:
            key_segment_pos = query_segment_pos
        if self.use_length_as_position:
            query_segment_pos = jnp.arange(query_segment_pos.shape[1])[jnp.newaxis]
            key_segment_pos = jnp.arange(key_segment_pos.shape[1])[jnp.newaxis]
        return self._bias(query_segment_pos, key_segment_pos)

    def at_step(
        self, seq_length: int, time_step: TimeStep, num_steps: int = 1
    ) -> Float[Array, "1 N _ S"]:
        """The bias of queries at `time_step` and after it, for the keys of a cache.

        Args:
          seq_length: S; the keys have positions 0 to S - 1.
          time_step: Position of the first query.
          num_steps: T, queries.

        Returns:
          [1, N, T, S].
        """
        query = jnp.arange(num_steps)[jnp.newaxis] + time_step
        return self._bias(query, jnp.arange(seq_length)[jnp.newaxis])

    def extend_step(
        self, seq_length: int, time_step: TimeStep | None = None
    ) -> Float[Array, "1 N 1 S"]:
        """The bias of one query, for the keys of a cache.

        Outside evaluation and with `use_length_as_position`, the query counts as the first of the
        row, whatever `time_step` is: recorded numbers of this method are so. Attention layers call
        `at_step`, which has no such exception.

        Args:
          seq_length: S; the keys have positions 0 to S - 1.
          time_step: Position of the query; None: 0.

        Returns:
          [1, N, 1, S].
        """
        if time_step is None or (self.use_length_as_position and not self.do_eval):
            time_step = 0
        return self.at_step(seq_length, time_step)

    def _bias(
        self, query_pos: Int[Array, "B T"], key_pos: Int[Array, "_ S"]
    ) -> Float[Array, "_ N T S"]:
        buckets = relative_buckets(
            key_pos[:, jnp.newaxis, :] - query_pos[:, :, jnp.newaxis],
            num_buckets=self.relative_attention_num_buckets,
            max_distance=self.relative_attention_max_distance,
            bidirectional=self.bidirectional,
        )  # [B, T, S]
        # A gather of N numbers for each pair, which a one-hot product would do with R times more.
        return jnp.moveaxis(jnp.take(self.theta.wrb, buckets, axis=1), 0, 1)

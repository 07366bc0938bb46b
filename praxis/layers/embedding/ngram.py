"""Embeddings of pairs of neighbouring tokens, hashed into one table for each head."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import normalizations
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.table import Embedding

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def get_bigram_ids(
    ids: Int[Array, "B L"],
    vocab_size: int,
    segment_pos: Int[Array, "B L"] | None = None,
    pair_ids: Int[Array, "B L"] | None = None,
) -> Int[Array, "B L"]:
    """Numbers pairs of a token and the one before it: `token + previous * vocab_size`.

    Args:
      ids: [B, L], tokens.
      vocab_size: More than each token. Beyond 46340, numbers wrap around in int32.
      segment_pos: [B, L], position of each token in its example; None: there is one example.
      pair_ids: [B, L], index in the row of the token to pair each token with, in place of the one
        before it; L stands for none.

    Returns:
      [B, L]. What has no partner, as the first token of an example, is paired with token 0.
    """
    if pair_ids is None:
        previous = jnp.pad(ids, ((0, 0), (1, 0)))[:, :-1]
    else:
        previous = jnp.take_along_axis(jnp.pad(ids, ((0, 0), (0, 1))), pair_ids, axis=1)
    if segment_pos is not None:
        previous = jnp.where(segment_pos == 0, 0, previous)
    return ids + previous * vocab_size


def primes_above(number: int, count: int) -> list[int]:
    """The first `count` primes that are larger than a number."""
    found: list[int] = []
    candidate = max(number + 1, 2)
    while len(found) < count:
        if all(candidate % factor for factor in range(2, math.isqrt(candidate) + 1)):
            found.append(candidate)
        candidate += 1
    return found


def hash_bigrams(
    bigram_ids: Int[Array, "*B"], head: int, prime: int, vocab_size: int
) -> Int[Array, "*B"]:
    """Rows of a table of `vocab_size` for pairs; each head has a hash of its own."""
    return (bigram_ids * (head + 1) + (head + 1)) % prime % vocab_size


def split_heads(
    layer: Any, input_embs: Float[Array, "B L ..."], num_heads: int, dim_per_head: int
) -> Float[Array, "B L N H"]:
    """Gives embeddings [B, L, N * H] an axis of heads, unless they have one.

    Raises:
      ValueError: if they have another width.
    """
    shape = input_embs.shape
    if shape[2:] == (num_heads, dim_per_head):
        return input_embs
    if shape[2:] != (num_heads * dim_per_head,):
        raise ValueError(
            f"{layer.path_text}: input_embs have shape {shape}, expected [B, L, N * H] or "
            f"[B, L, N, H] with N = num_heads = {num_heads} and H = dim_per_head = {dim_per_head}."
        )
    return input_embs.reshape(*shape[:2], num_heads, dim_per_head)


def check_ngram_width(layer: Any) -> None:
    """Refuses n-gram embeddings that do not fit into, or cannot be added to, those of a head.

    Raises:
      ValueError: naming the layer and both widths.
    """
    wide, width = layer.ngram_emb_dim, layer.dim_per_head
    if layer.concat_ngrams and wide > width:
        raise ValueError(
            f"{layer.path_text}: ngram_emb_dim = {wide} is more than dim_per_head = {width}, but "
            "n-grams take the place of its last dims with concat_ngrams = True. Make it smaller."
        )
    if not layer.concat_ngrams and wide != width:
        raise ValueError(
            f"{layer.path_text}: ngram_emb_dim = {wide} is not dim_per_head = {width}, but n-grams "
            "are added with concat_ngrams = False. Make them equal, or set it to True."
        )


def combine_with_ngrams(
    embs: Float[Array, "B L H"], ngrams: Float[Array, "B L E"], concat: bool
) -> Float[Array, "B L H"]:
    """Puts n-grams in the place of the last E dims, or adds them, where E = H."""
    if not concat:
        return embs + ngrams
    kept = embs.shape[-1] - ngrams.shape[-1]
    return jnp.concatenate([embs[..., :kept], ngrams], axis=-1)


def finish_heads(
    heads: list[Float[Array, "B L H"]], paddings: Shaped[Array, "B L"] | None, merge_heads: bool
) -> Float[Array, "B L ..."]:
    """Joins heads to [B, L, N, H] or [B, L, N * H], with zeros at the padding."""
    outputs = jnp.stack(heads, axis=2)
    if paddings is not None:
        kept = (1 - paddings)[:, :, jnp.newaxis, jnp.newaxis]
        outputs *= kept.astype(outputs.dtype)
    if merge_heads:
        return outputs.reshape(*outputs.shape[:2], -1)
    return outputs


class Ngrammer(base_layer.BaseLayer):
    """Adds to each embedding what is known about the pair of its token and the one before.

    Roy et al., "N-Grammer: Augmenting Transformers with latent n-grams", 2022, arXiv:2207.06366,
    for tokens that are given. For each head both embeddings are normalised. Shapes: N is
    `num_heads`, H is `dim_per_head`, E is `ngram_emb_dim`, V is `ngram_vocab_size`.

    Attributes:
      ngram_vocab_size: V, at least 1: rows of each table, which pairs are hashed to.
      unigram_vocab_size: More than each token, at least 1. Required.
      ngram_emb_dim: E, at least 1.
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      concat_ngrams: Put pairs in the place of the last E dims of each head. False: add them; then E
        has to be H.

    Variables:
      emb_layer_norm_{i}: as in `LayerNorm`, [H], for each head
      ngram_layer_norm_{i}: as in `LayerNorm`, [E], for each head
      ngram_table_{i}/emb_var: [V, E], for each head, sharded by `weight_split_dims_mapping.wt`

    Raises:
      ValueError: during setup, if sizes are missing or do not go together; in calls, for embeddings
        of another width.
    """

    ngram_vocab_size: int = 768 * 256
    unigram_vocab_size: int = 0
    ngram_emb_dim: int = 8
    concat_ngrams: bool = True
    num_heads: int = 0
    dim_per_head: int = 0

    def setup(self) -> None:
        check_sizes(
            self,
            *("ngram_vocab_size", "unigram_vocab_size", "ngram_emb_dim"),
            *("num_heads", "dim_per_head"),
        )
        check_ngram_width(self)
        for head in range(self.num_heads):
            create_head_norms(self, head, self.dim_per_head, self.ngram_emb_dim)
            self.create_child(f"ngram_table_{head}", self._table_config())

    def _table_config(self) -> LayerTpl:
        """The config of the table of one head; quantized layers replace it."""
        table = pax_fiddle.Config(
            Embedding, num_classes=self.ngram_vocab_size, input_dims=self.ngram_emb_dim
        )
        table.weight_split_dims_mapping.wt = self.weight_split_dims_mapping.wt
        return table

    def __call__(
        self,
        input_ids: Int[Array, "B L ..."],
        input_embs: Float[Array, "B L ..."],
        paddings: Shaped[Array, "B L"] | None = None,
        segment_pos: Int[Array, "B L"] | None = None,
        merge_heads: bool = True,
        pair_ids: Int[Array, "B L ..."] | None = None,
        emb_var: Float[Array, "_ _"] | None = None,
        **kwargs: Any,
    ) -> Float[Array, "B L ..."]:
        """Combines embeddings with those of pairs.

        Args:
          input_ids: [B, L], tokens; or [B, L, N], other ones for each head.
          input_embs: [B, L, N * H] or [B, L, N, H], their embeddings.
          paddings: [B, L], 1 marks padding.
          segment_pos: [B, L], position of each token in its example; None: there is one example.
          merge_heads: Return [B, L, N * H].
          pair_ids: [B, L] or [B, L, N], as in `get_bigram_ids`.
          emb_var: Not read; other n-grammers do.
          **kwargs: Not read; likewise.

        Returns:
          [B, L, N * H], or [B, L, N, H]; zeros at the padding.
        """
        del emb_var, kwargs
        embs = split_heads(self, input_embs, self.num_heads, self.dim_per_head)
        primes = primes_above(self.ngram_vocab_size, self.num_heads)
        outputs = []
        for head, prime in enumerate(primes):
            ids, pairs = of_head(input_ids, head), of_head(pair_ids, head)
            bigrams = get_bigram_ids(ids, self.unigram_vocab_size, segment_pos, pairs)
            rows = hash_bigrams(bigrams, head, prime, self.ngram_vocab_size)
            ngrams = getattr(self, f"ngram_table_{head}").emb_lookup(rows)
            outputs.append(
                combine_with_ngrams(
                    getattr(self, f"emb_layer_norm_{head}")(embs[:, :, head]),
                    getattr(self, f"ngram_layer_norm_{head}")(ngrams),
                    self.concat_ngrams,
                )
            )
        return finish_heads(outputs, paddings, merge_heads)


def of_head(x: Any, head: int) -> Any:
    """The part [B, L] of one head of what may be [B, L, N]; None stays None."""
    return x if x is None or x.ndim == 2 else x[:, :, head]


def create_head_norms(layer: Any, head: int, dim_per_head: int, ngram_emb_dim: int) -> None:
    """Creates the normalizations of the embeddings and of the n-grams of one head."""
    norm = pax_fiddle.Config(normalizations.LayerNorm)
    layer.create_child(f"emb_layer_norm_{head}", norm.clone().set(dim=dim_per_head))
    layer.create_child(f"ngram_layer_norm_{head}", norm.clone().set(dim=ngram_emb_dim))

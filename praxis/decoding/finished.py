"""The best finished texts of a beam search, and the order of its beginnings."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

# Score of a place without a text; scores below half of it are of no text either.
NO_SCORE = -1e9


class Finished(NamedTuple):
    """Texts that have ended. Shapes: K texts of each of B rows, S steps.

    Attributes:
      ids: [B, K, S], tokens.
      lengths: [B, K], tokens that were generated, with the end-of-text token.
      scores: [B, K], normalized by length; -1e9 where there is no text.
      logprobs: [B, K, S], of the tokens.
    """

    ids: Int[Array, "B K S"]
    lengths: Int[Array, "B K"]
    scores: Float[Array, "B K"]
    logprobs: Float[Array, "B K S"]


def update_global_beam(
    end_hyps: tuple[jax.Array, ...], cur_hyps: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """The K best texts among those of before and those that end now, by falling score.

    Args:
      end_hyps: Ids, lengths and scores as in `Finished`, K of each row, and what else belongs to
        the texts, [B, K, ...].
      cur_hyps: Likewise. Of equal scores, `end_hyps` come first.
    """
    union = [
        jnp.concatenate([old, new], axis=1) for old, new in zip(end_hyps, cur_hyps, strict=True)
    ]
    _, best = lax.top_k(union[2], end_hyps[2].shape[1])
    return tuple(shuffle_state(x, best) for x in union)


def shuffle_state(
    x: Shaped[Array, "B _ ..."], hyp_id: Int[Array, "B K"], use_one_hot_matmul: bool = False
) -> Shaped[Array, "B K ..."]:
    """Takes the entries of axis 1 that `hyp_id` names, for each row.

    Args:
      x: [B, M, ...].
      hyp_id: [B, K], below M.
      use_one_hot_matmul: With a matrix product, which some accelerators do faster; it is exact.
    """
    if use_one_hot_matmul:
        # Integers and booleans too: the products are sums of one term.
        dtype = jnp.int32 if x.dtype == jnp.bool else x.dtype
        one_hot = jax.nn.one_hot(hyp_id, x.shape[1], dtype=dtype)
        flat = x.reshape(*x.shape[:2], -1).astype(dtype)
        product = jnp.einsum("bkm,bmx->bkx", one_hot, flat, precision=lax.Precision.HIGHEST)
        return product.astype(x.dtype).reshape(*hyp_id.shape, *x.shape[2:])
    trailing = (1,) * (x.ndim - 2)
    return jnp.take_along_axis(x, hyp_id.reshape(*hyp_id.shape, *trailing), axis=1)


def broadcast_beam_dim(
    x: Shaped[Array, "..."], beam_dim: int, beam_size: int
) -> Shaped[Array, "..."]:
    """Repeats an array along a new axis `beam_dim` of `beam_size`."""
    shape = (*x.shape[:beam_dim], beam_size, *x.shape[beam_dim:])
    return jnp.broadcast_to(jnp.expand_dims(x, beam_dim), shape)

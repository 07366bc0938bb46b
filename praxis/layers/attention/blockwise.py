"""Attention block by block: exact, in memory linear in the number of queries and keys."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from praxis.layers.attention.mask_spec import AttentionMask, as_mask
from praxis.layers.attention.score import cap_logits

QUERY_BLOCK = 512
KEY_BLOCK = 256

# Masked logits are LARGE_NEGATIVE, and a running maximum starts at half of it: the exponential of
# the difference is 0, so that a masked key has no weight even before a query has seen a key.
_LARGE_NEGATIVE = -0.7 * float(jnp.finfo(jnp.float32).max)


class _Options(NamedTuple):
    """What is known when a program is traced.

    Attributes:
      cap: Soft cap of the logits, 0 for none.
      extra_logit: Logit of a key of value 0 that all queries see; None for none.
      logits_scale: Multiplies the logits.
      blind_mean: Whether a query that sees no key gets the mean of all values, and not 0.
      query_block: Queries of a block.
      key_block: Keys of a block.
    """

    cap: float
    extra_logit: float | None
    logits_scale: float
    blind_mean: bool
    query_block: int
    key_block: int


def blockwise_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K _"],
    mask: Any = None,
    *,
    bias: Float[Array, "_ _ _ S"] | None = None,
    cap: float = 0.0,
    extra_logit: float | None = None,
    logits_scale: float = 1.0,
    zero_fully_masked: bool = False,
    query_block: int = QUERY_BLOCK,
    key_block: int = KEY_BLOCK,
) -> Float[Array, "B T N _"]:
    """Computes `softmax(mask(cap(logits_scale * (query . key + bias)))) . value`.

    Only a block of logits exists at a time, and the backward pass computes it again. The softmax is
    corrected as larger logits come: Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory",
    2021, arXiv:2112.05682; backward as in Dao et al., "FlashAttention", 2022, arXiv:2205.14135.
    Blocks that a causal mask or a window hides are not computed. Logits and the softmax are
    float32. Gradients flow to query, key, value and bias.

    Args:
      query: [B, T, N, H], already scaled.
      key: [B, S, K, H]; K divides N, and N / K consecutive query heads share a head of these.
      value: [B, S, K, H], whose last axis may have another width.
      mask: An `AttentionMask`; an additive or boolean array, [B, N, T, S] with 1 for a size where
        it is shared; or None, where each query sees all keys.
      bias: Added to the logits, [B, N, T, S] with 1 for a size where it is shared.
      cap: Soft cap of the logits, see `score.cap_logits`; 0 for none.
      extra_logit: Logit of a key of value 0 that all queries see; None for none.
      logits_scale: Multiplies the logits, and the bias with them.
      zero_fully_masked: Make the context of a query that sees no key 0, not the mean of all values.
      query_block: Queries of a block; need not divide T.
      key_block: Keys of a block; need not divide S.

    Returns:
      The context [B, T, N, H], in the dtype of `value`.

    Raises:
      ValueError: if shapes do not go together, or a block is smaller than 1.
    """
    batch, target_len, num_heads, _ = query.shape
    source_len, num_kv_heads = key.shape[1:3]
    _check(query, key, value, query_block, key_block)
    mask = as_mask(mask, target_len, source_len)
    options = _Options(
        cap=cap,
        extra_logit=extra_logit,
        logits_scale=logits_scale,
        blind_mean=extra_logit is None and not zero_fully_masked,
        query_block=min(query_block, target_len),
        key_block=min(key_block, source_len),
    )
    grouped = query.reshape(batch, target_len, num_kv_heads, num_heads // num_kv_heads, -1)
    context = _attention(
        options,
        jnp.einsum("BTKGH->BKGTH", grouped),
        jnp.einsum("BSKH->BKSH", key),
        jnp.einsum("BSKH->BKSH", value),
        None if bias is None else _group_heads(bias, num_kv_heads),
        mask,
    )
    return jnp.einsum("BKGTH->BTKGH", context).reshape(batch, target_len, num_heads, -1)


def _check(query: Array, key: Array, value: Array, query_block: int, key_block: int) -> None:
    fits = (
        query.shape[0] == key.shape[0]
        and key.shape[:3] == value.shape[:3]
        and query.shape[3] == key.shape[3]
        and query.shape[2] % key.shape[2] == 0
    )
    if not fits:
        raise ValueError(
            f"blockwise_attention: query has shape {query.shape}, key {key.shape} and value "
            f"{value.shape}, expected [B, T, N, H] and twice [B, S, K, H], where K divides N."
        )
    if min(query_block, key_block) < 1:
        raise ValueError(
            f"blockwise_attention: query_block is {query_block} and key_block is {key_block}, "
            "expected at least 1."
        )


def _group_heads(x: Array, num_kv_heads: int) -> Array:
    """[B, N, T, S] as [B, K, G, T, S], with 1 for a size where it is shared."""
    heads = (1, 1) if x.shape[1] == 1 else (num_kv_heads, x.shape[1] // num_kv_heads)
    return x.reshape(x.shape[0], *heads, *x.shape[2:])


# ---- blocks -------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """Some of the queries or keys, in succession.

    The last block of a length that is no multiple of the block starts earlier than its number
    says, so that all have the same length; `first_new` is the first index that is not in the block
    before.
    """

    start: Any
    length: int
    first_new: Any


def _block(index: Any, length: int, total: int) -> _Block:
    first_new = index * length
    return _Block(jnp.minimum(first_new, total - length), length, first_new)


def _take(x: Array, block: _Block, axis: int) -> Array:
    return lax.dynamic_slice_in_dim(x, block.start, block.length, axis)


def _put(x: Array, block: _Block, axis: int, update: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(x, update.astype(x.dtype), block.start, axis)


def _add(x: Array, block: _Block, axis: int, update: Array) -> Array:
    return _put(x, block, axis, _take(x, block, axis) + update)


def _take_bias(bias: Array, queries: _Block, keys: _Block) -> Array:
    """The block of [B, K, G, T, S] with 1 for a size where it is shared."""
    for axis, block in ((3, queries), (4, keys)):
        bias = bias if bias.shape[axis] == 1 else _take(bias, block, axis)
    return bias


def _add_bias_grad(total: Array, queries: _Block, keys: _Block, grad: Array) -> Array:
    """Adds the gradient of a block of logits to that of the bias."""
    shared = [axis for axis, size in enumerate(total.shape) if size == 1]
    grad = jnp.sum(grad, axis=shared, keepdims=True)
    old = _take_bias(total, queries, keys)
    starts = [
        0,
        0,
        0,
        *(0 if total.shape[a] == 1 else b.start for a, b in ((3, queries), (4, keys))),
    ]
    return lax.dynamic_update_slice(total, old + grad, starts)


def _key_blocks(options: _Options, mask: AttentionMask, queries: _Block) -> tuple[Any, Any]:
    """The numbers of the first key block that the queries see and of the first that is not seen."""
    start, stop = mask.key_range(queries.start, queries.length)
    size = options.key_block
    return start // size, (stop + size - 1) // size


def _wide(x: Array) -> Any:
    """The dtype of softmaxes and sums: float32, or float64 of such inputs."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _logits(
    options: _Options,
    query: Array,
    key: Array,
    bias: Array | None,
    mask: AttentionMask,
    queries: _Block,
    keys: _Block,
) -> tuple[Array, Array]:
    """Logits before and after cap and mask, [B, K, G, t, s], float32."""
    logits = jnp.einsum("BKGTH,BKSH->BKGTS", query, key, preferred_element_type=_wide(query))
    if bias is not None:
        logits += jnp.broadcast_to(_take_bias(bias, queries, keys), logits.shape)
    if options.logits_scale != 1.0:
        logits *= options.logits_scale
    capped = cap_logits(logits, options.cap)
    keep = mask.block(queries.start, queries.length, keys.start, keys.length)
    keep = _group_heads(keep, key.shape[1])
    if mask.source_len % options.key_block:
        index = keys.start + jnp.arange(keys.length)
        keep &= (index >= keys.first_new).reshape(1, 1, 1, 1, -1)
    return logits, jnp.where(keep, capped, _LARGE_NEGATIVE)


# ---- forward ------------------------------------------------------------------------------------


class _Running(NamedTuple):
    """Softmax over the keys so far: [B, K, G, t], the same, and [B, K, G, t, H]."""

    highest: Array
    total: Array
    context: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    options: _Options, query: Array, key: Array, value: Array, bias: Array | None, mask: Any
) -> Array:
    """[B, K, G, T, H] from queries of this shape, and keys and values [B, K, S, H]."""
    return _forward(options, query, key, value, bias, mask)[0]


def _forward(
    options: _Options, query: Array, key: Array, value: Array, bias: Array | None, mask: Any
) -> tuple[Array, Any]:
    target_len, source_len = query.shape[3], key.shape[2]
    wide = _wide(value)
    value_mean = jnp.mean(value, axis=2, dtype=wide)[:, :, jnp.newaxis, jnp.newaxis]

    def one_query_block(index: Any, results: tuple[Array, Array]) -> tuple[Array, Array]:
        queries = _block(index, options.query_block, target_len)
        query_block = _take(query, queries, 3)

        def one_key_block(index: Any, running: _Running) -> _Running:
            keys = _block(index, options.key_block, source_len)
            _, logits = _logits(
                options, query_block, _take(key, keys, 2), bias, mask, queries, keys
            )
            highest = jnp.maximum(running.highest, jnp.max(logits, axis=-1))
            weights = jnp.exp(logits - highest[..., jnp.newaxis])
            shrink = jnp.exp(running.highest - highest)
            context = jnp.einsum(
                "BKGTS,BKSH->BKGTH",
                weights.astype(value.dtype),
                _take(value, keys, 2),
                preferred_element_type=wide,
            )
            return _Running(
                highest,
                running.total * shrink + jnp.sum(weights, axis=-1),
                running.context * shrink[..., jnp.newaxis] + context,
            )

        first, stop = _key_blocks(options, mask, queries)
        start = _start(options, query_block.shape[:-1], value.shape[-1], wide)
        running = lax.fori_loop(first, stop, one_key_block, start)
        blind = running.total == 0
        context = running.context / jnp.where(blind, 1, running.total)[..., jnp.newaxis]
        if options.blind_mean:
            context = jnp.where(blind[..., jnp.newaxis], value_mean, context)
        # The backward pass takes exp(logits - log_normalizer), which is 0 for a query without keys.
        log_normalizer = jnp.where(blind, jnp.inf, running.highest + jnp.log(running.total))
        contexts, log_normalizers = results
        return _put(contexts, queries, 3, context), _put(
            log_normalizers, queries, 3, log_normalizer
        )

    contexts = jnp.zeros([*query.shape[:-1], value.shape[-1]], value.dtype)
    log_normalizers = jnp.zeros(query.shape[:-1], wide)
    num_blocks = -(-target_len // options.query_block)
    contexts, log_normalizers = lax.fori_loop(
        0, num_blocks, one_query_block, (contexts, log_normalizers)
    )
    return contexts, (query, key, value, bias, mask, contexts, log_normalizers)


def _start(options: _Options, shape: tuple[int, ...], width: int, dtype: Any) -> _Running:
    """The softmax before the first key."""
    highest, total = _LARGE_NEGATIVE / 2, 0.0
    if options.extra_logit is not None:
        highest, total = options.extra_logit, 1.0
    return _Running(
        jnp.full(shape, highest, dtype),
        jnp.full(shape, total, dtype),
        jnp.zeros([*shape, width], dtype),
    )


# ---- backward -----------------------------------------------------------------------------------


class _Grads(NamedTuple):
    query: Array
    key: Array
    value: Array
    bias: Array | None


def _backward(options: _Options, saved: Any, context_grad: Array) -> tuple[Any, ...]:
    query, key, value, bias, mask, contexts, log_normalizers = saved
    target_len, source_len = query.shape[3], key.shape[2]
    wide = _wide(query)
    wide_grad = context_grad.astype(wide)
    # The softmax takes away from the gradient of each logit the mean of them all.
    means = jnp.sum(wide_grad * contexts.astype(wide), axis=-1)  # [B, K, G, T]

    def one_query_block(index: Any, grads: _Grads) -> _Grads:
        queries = _block(index, options.query_block, target_len)
        query_block, grad_block, mean, log_normalizer = (
            _take(x, queries, 3) for x in (query, context_grad, means, log_normalizers)
        )
        if target_len % options.query_block:
            is_new = queries.start + jnp.arange(queries.length) >= queries.first_new
            is_new = is_new.reshape(1, 1, 1, -1)
            log_normalizer = jnp.where(is_new, log_normalizer, jnp.inf)

        def one_key_block(index: Any, carry: tuple[Array, _Grads]) -> tuple[Array, _Grads]:
            query_grad, grads = carry
            keys = _block(index, options.key_block, source_len)
            key_block, value_block = _take(key, keys, 2), _take(value, keys, 2)
            uncapped, logits = _logits(options, query_block, key_block, bias, mask, queries, keys)
            probs = jnp.exp(logits - log_normalizer[..., jnp.newaxis])
            probs_grad = jnp.einsum(
                "BKGTH,BKSH->BKGTS", grad_block, value_block, preferred_element_type=wide
            )
            logits_grad = probs * (probs_grad - mean[..., jnp.newaxis])
            if options.cap > 0.0:
                logits_grad *= 1 - jnp.square(jnp.tanh(uncapped / options.cap))
            if options.logits_scale != 1.0:
                logits_grad *= options.logits_scale
            bias_grad = grads.bias
            if bias_grad is not None:
                bias_grad = _add_bias_grad(bias_grad, queries, keys, logits_grad)
            narrow = logits_grad.astype(query.dtype)
            wide_einsum = functools.partial(jnp.einsum, preferred_element_type=wide)
            query_grad += wide_einsum("BKGTS,BKSH->BKGTH", narrow, key_block)
            key_grad = wide_einsum("BKGTS,BKGTH->BKSH", narrow, query_block)
            value_grad = wide_einsum("BKGTS,BKGTH->BKSH", probs.astype(value.dtype), grad_block)
            return query_grad, _Grads(
                grads.query,
                _add(grads.key, keys, 2, key_grad),
                _add(grads.value, keys, 2, value_grad),
                bias_grad,
            )

        first, stop = _key_blocks(options, mask, queries)
        zeros = jnp.zeros(query_block.shape, wide)
        query_grad, grads = lax.fori_loop(first, stop, one_key_block, (zeros, grads))
        return grads._replace(query=_add(grads.query, queries, 3, query_grad))

    grads = jax.tree.map(lambda x: jnp.zeros(x.shape, wide), _Grads(query, key, value, bias))
    num_blocks = -(-target_len // options.query_block)
    grads = lax.fori_loop(0, num_blocks, one_query_block, grads)
    if options.blind_mean:
        grads = grads._replace(
            value=grads.value + _mean_grad(wide_grad, log_normalizers, source_len)
        )
    narrow = jax.tree.map(
        lambda grad, x: grad.astype(x.dtype), grads, _Grads(query, key, value, bias)
    )
    return (*narrow, None)


def _mean_grad(context_grad: Array, log_normalizers: Array, source_len: int) -> Array:
    """Gradient of each value by queries that see no key, which get the mean, [B, K, 1, H]."""
    blind = jnp.isposinf(log_normalizers)[..., jnp.newaxis]
    total = jnp.sum(jnp.where(blind, context_grad, 0), axis=(2, 3))  # [B, K, H]
    return total[:, :, jnp.newaxis] / source_len


_attention.defvjp(_forward, _backward)

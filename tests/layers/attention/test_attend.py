"""The function that attention layers share, and its form for decoding steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers.attention import attend as attend_module
from praxis.layers.attention.attend import attend, choose_implementation
from praxis.layers.attention.attend_cache import Chunk, attend_to_chunks
from praxis.layers.attention.mask_spec import AttentionMask

B, T, S, N, K, H = 2, 5, 7, 6, 3, 4


def normal(seed, *shape):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def heads(num_kv_heads=K, batch=B):
    query, key = normal(1, batch, T, N, H), normal(2, B, S, num_kv_heads, H)
    return query, key, normal(3, B, S, num_kv_heads, H)


def reference(query, key, value, keep, *, bias=0.0, scale=1.0, cap=0.0, extra=None):
    """The formula in NumPy, float64, with as many key-value heads as query heads."""
    q, k, v = (np.float64(x) for x in (query, key, value))
    logits = (np.einsum("btnh,bsnh->bnts", q, k) + np.float64(bias)) * scale
    if cap:
        logits = cap * np.tanh(logits / cap)
    weights = np.where(keep, np.exp(logits), 0.0)
    total = weights.sum(-1, keepdims=True) + (0.0 if extra is None else np.exp(extra))
    probs = weights / total
    return np.einsum("bnts,bsnh->btnh", probs, v), probs


KEEP = np.arange(S)[None, None, None] <= np.arange(T)[None, None, :, None] + 1
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cap": {"cap": 0.8},
    "extra": {"extra_logit": 0.3},
    "bias_scaled": {"bias": normal(4, 1, N, T, S), "logits_scale": 0.5},
}


@pytest.mark.parametrize("implementation", ["reference", "blockwise", "fused"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("lazy", [False, True])
def test_grouped_heads_match_numpy(name, implementation, lazy):
    """N / K consecutive query heads read one key-value head."""
    query, key, value = heads()
    fields = OPTIONS[name]
    mask = jnp.asarray(KEEP)
    if lazy:
        mask = AttentionMask(target_len=T, source_len=S, dense=mask)
    context, probs = attend(query, key, value, mask, implementation=implementation, **fields)
    all_keys, all_values = (np.repeat(x, N // K, axis=2) for x in (key, value))
    words = {"logits_scale": "scale", "extra_logit": "extra"}
    renamed = {words.get(field, field): value for field, value in fields.items()}
    want_context, want_probs = reference(query, all_keys, all_values, KEEP, **renamed)
    np.testing.assert_allclose(context, want_context, rtol=2e-5, atol=2e-5)
    if implementation == "reference":
        assert probs is not None
        np.testing.assert_allclose(probs, want_probs, rtol=2e-5, atol=2e-5)
    else:
        assert probs is None


def test_grouped_heads_are_not_repeated_in_memory():
    """No array of the compiled program is as large as keys repeated for all heads."""
    query, key, value = heads()
    jaxpr = jax.make_jaxpr(lambda q, k, v: attend(q, k, v, None).context)(query, key, value)
    shapes = [v.aval.shape for eqn in jaxpr.eqns for v in eqn.outvars]
    assert (B, S, N, H) not in shapes
    assert (B, N, S, H) not in shapes


def test_as_many_key_value_heads_is_one_product_each():
    """K = N is the einsum of full attention, without a reshape around it."""
    jaxpr = jax.make_jaxpr(lambda q, k, v: attend(q, k, v, None).context)(*heads(N))
    names = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert names.count("dot_general") == 2
    assert "reshape" not in names


def test_unknown_implementation_is_refused_with_the_valid_ones():
    message = r"attend: implementation is 'flash', expected one of \('auto', 'reference',"
    with pytest.raises(ValueError, match=message):
        attend(*heads(), None, implementation="flash")


@pytest.mark.parametrize(
    "fields",
    [{"dropout": lambda p: p}, {"need_probs": True}, {"qk_einsum": lambda *a: jnp.einsum(*a)}],
    ids=["dropout", "need_probs", "qk_einsum"],
)
def test_what_needs_all_probabilities_keeps_auto_at_the_reference(fields, monkeypatch):
    monkeypatch.setattr(attend_module, "BLOCKWISE_FROM_LOGITS", T * S)
    assert attend(*heads(), None, implementation="auto").probs is None
    assert attend(*heads(), None, implementation="auto", **fields).probs is not None
    with pytest.raises(ValueError, match=rf"'blockwise' never holds.*{next(iter(fields))}"):
        attend(*heads(), None, implementation="blockwise", **fields)


def test_auto_goes_blockwise_from_the_documented_size_on():
    edge = attend_module.BLOCKWISE_FROM_LOGITS
    assert edge == 2048 * 2048
    for implementation, num_logits, expected in (
        ("auto", edge, "blockwise"),
        ("auto", edge - 1, "reference"),
        ("reference", edge, "reference"),
        ("blockwise", 1, "blockwise"),
    ):
        chosen = choose_implementation(implementation, whole=False, num_logits=num_logits)
        assert chosen == expected


@pytest.mark.parametrize("samples", [1, 3])
def test_queries_that_share_a_row_equal_repeated_rows(samples):
    query, key, value = heads(batch=B * samples)
    mask = jnp.asarray(KEEP[:, :, -1:])
    context, probs = attend_to_chunks(query, [Chunk(key, value)], mask)
    all_keys, all_values = (jnp.repeat(x, samples, axis=0) for x in (key, value))
    expected = attend(query, all_keys, all_values, mask)
    np.testing.assert_allclose(context, expected.context, rtol=2e-5, atol=2e-5)
    assert probs is not None
    assert expected.probs is not None
    np.testing.assert_allclose(probs, expected.probs, rtol=2e-5, atol=2e-5)


def test_chunks_with_different_rows_share_one_softmax():
    """A prefix of B rows and a suffix of each of 3 samples, with a mask for each sample."""
    samples, late = 3, 2
    query, key, value = heads(batch=B * samples)
    suffix = Chunk(normal(5, B * samples, late, K, H), normal(6, B * samples, late, K, H))
    keep = np.random.default_rng(7).random((B * samples, 1, T, S + late)) < 0.7
    keep[..., 0] = True
    chunks = [Chunk(key, value), suffix]
    bias = normal(8, 1, N, T, S + late)
    context, _ = attend_to_chunks(query, chunks, jnp.asarray(keep), bias=bias)
    all_keys, all_values = (
        np.repeat(np.concatenate([np.repeat(a, samples, axis=0), b], axis=1), N // K, axis=2)
        for a, b in zip((key, value), suffix, strict=True)
    )
    expected, _ = reference(query, all_keys, all_values, keep, bias=bias)
    np.testing.assert_allclose(context, expected, rtol=2e-5, atol=2e-5)

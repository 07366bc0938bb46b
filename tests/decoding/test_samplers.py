"""Choice of tokens from logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import py_utils
from praxis.decoding import samplers

PROBS = np.array([0.42, 0.26, 0.16, 0.09, 0.07])
LOGITS = jnp.log(jnp.asarray(np.stack([PROBS, PROBS[::-1]]), jnp.float32))
KEY = jax.random.PRNGKey(3)


def kept(masked):
    return [set(np.flatnonzero(row > -1e30)) for row in np.asarray(masked)]


@pytest.mark.parametrize(("p", "count"), [(0.4, 1), (0.6, 2), (0.8, 3), (0.9, 4), (1.0, 5)])
def test_top_p_keeps_the_nucleus(p, count):
    """Behaviour 28: 1, 2, 3, 4 tokens for p = .4, .6, .8, .9."""
    want = [set(range(count)), set(range(5 - count, 5))]
    assert kept(samplers.top_p_mask_logits(LOGITS, p)) == want
    falling = samplers.top_p_mask_logits(LOGITS[:1], p, True)
    assert kept(falling) == want[:1]


def test_top_p_by_row():
    masked = samplers.top_p_mask_logits(LOGITS, jnp.array([0.4, 0.9]))
    assert [len(row) for row in kept(masked)] == [1, 4]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_top_p_never_keeps_what_is_outside_the_nucleus(seed, p):
    logits = np.random.default_rng(seed).standard_normal(7).astype(np.float32)
    probs = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum()
    order = np.argsort(-probs)
    before = np.cumsum(probs[order]) - probs[order]
    if np.abs(before - p).min() < 1e-5:  # float32 may round either way
        return
    [got] = kept(samplers.top_p_mask_logits(jnp.asarray(logits)[jnp.newaxis], p))
    assert got == set(order[before < p])


def test_top_k_never_draws_another_token_and_frequencies_fit():
    draws = jax.vmap(
        lambda key: samplers.sample_from_top_k_and_top_p(LOGITS, key, 1.0, top_k=2)[0]
    )(jax.random.split(KEY, 4000))
    assert set(np.unique(draws[:, 0])) == {0, 1} and set(np.unique(draws[:, 1])) == {3, 4}
    share = PROBS[0] / (PROBS[0] + PROBS[1])
    # Three standard deviations of a mean of 4000 draws.
    np.testing.assert_allclose(np.mean(draws[:, 0] == 0), share, atol=0.024)


def test_bfloat16_logits_are_drawn_from_with_float32_noise():
    """Upstream rounds the noise to bfloat16, which makes ties, won by the first token."""
    logits = jnp.zeros([1, 64], jnp.bfloat16)
    draws = jax.vmap(
        lambda key: samplers.sample_from_top_k_and_top_p(logits, key, 1.0, top_k=0)[0][0]
    )(jax.random.split(KEY, 8000))
    wide = jax.vmap(
        lambda key: samplers.sample_from_top_k_and_top_p(
            logits.astype(jnp.float32), key, 1.0, top_k=0
        )[0][0]
    )(jax.random.split(KEY, 8000))
    np.testing.assert_array_equal(draws, wide)


def test_global_normalize_takes_probabilities_among_all_tokens():
    """Upstream divides logits by their sum, which means nothing."""

    def tokens(global_normalize):
        return jax.vmap(
            lambda key: samplers.sample_from_top_k_and_top_p(
                LOGITS[:1],
                key,
                5.0,
                top_k=3,
                top_p=0.72,
                global_normalize=global_normalize,
            )[0][0]
        )(jax.random.split(KEY, 200))

    # Among the 3 the sums are .5, .81, 1; among all .42, .68, .84.
    assert set(np.unique(tokens(False))) == {0, 1}
    assert set(np.unique(tokens(True))) == {0, 1, 2}


def test_per_example_top_k_and_temperature():
    values, ids = samplers.get_top_k(LOGITS, 3, jnp.array([1, 2]))
    assert [len(row) for row in kept(values)] == [1, 2]
    np.testing.assert_array_equal(ids, [[0, 1, 2], [4, 3, 2]])
    tokens, logprobs = samplers.sample_from_top_k_and_top_p(
        LOGITS, KEY, jnp.array([0.0, 1e-6]), top_k=3
    )
    np.testing.assert_array_equal(tokens, [0, 4])
    np.testing.assert_allclose(logprobs, np.log(0.42 / 0.84), rtol=2e-5)


def test_more_candidates_than_tokens():
    _, ids = samplers.get_top_k(LOGITS, 40, None)
    assert ids.shape == (2, 5)


def test_epsilon_mask():
    assert kept(samplers.epsilon_mask_logits(LOGITS, 0.1)) == [{0, 1, 2}, {2, 3, 4}]
    np.testing.assert_array_equal(samplers.epsilon_mask_logits(LOGITS, 0.0), LOGITS)


def test_keys_by_row():
    keys = jnp.stack([KEY, KEY])
    noise = samplers.gumbel_noise(keys, (2, 5))
    np.testing.assert_array_equal(noise[0], noise[1])
    with pytest.raises(ValueError, match=r"Keys of shape \(2, 2\) for 3 rows of logits"):
        samplers.gumbel_noise(keys, (3, 5))


def test_sampler_returns_what_its_logits_sampler_returns():
    class Second(samplers.BaseLogitsSampler):
        """Takes the second candidate."""

        def __call__(self, prng_key, logits, ids, temperature, decode_loop_state):
            assert ids is not None
            return jnp.ones(logits.shape[:1], jnp.int32), py_utils.NestedMap(taken=ids[:, 1])

    class Model:
        def next_prng_key(self):
            return KEY

    sampler = samplers.DefaultNextTokenSampler(top_k=3, logits_sampler=Second())
    out = sampler(Model(), LOGITS, 1.0, py_utils.NestedMap(step=0))
    np.testing.assert_array_equal(out.new_ids, [1, 3])
    np.testing.assert_array_equal(out.taken, [1, 3])


def test_errors():
    with pytest.raises(ValueError, match="DefaultNextTokenSampler: top_k is -1, expected at least"):
        samplers.DefaultNextTokenSampler(top_k=-1)(None, LOGITS, 0.0, py_utils.NestedMap(step=0))
    with pytest.raises(NotImplementedError, match=r"BaseNextTokenSampler\.__call__ is not implem"):
        samplers.BaseNextTokenSampler()(None, LOGITS, 0.0, py_utils.NestedMap())
    with pytest.raises(NotImplementedError, match=r"BaseLogitsSampler\.__call__ is not impl"):
        samplers.BaseLogitsSampler()(KEY, LOGITS, None, 0.0, None)

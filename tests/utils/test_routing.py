"""Routing of tokens to experts, against loops over tokens in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import gshard_utils
from praxis.utils import gating, routing

G, S, E = 2, 7, 3


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def random_logits(seed=0, shape=(G, S, E)):
    return np.random.default_rng(seed).standard_normal(shape)


def some_paddings(seed=1, shape=(G, S)):
    return (np.random.default_rng(seed).random(shape) < 0.3).astype(np.float32)


def reference(logits, paddings, *, capacity, k=2, normalized=True):
    """Combine tensor, dispatch tensor and loss: queues filled token by token, choice by choice."""
    groups, size, num_experts = logits.shape
    probs = softmax(np.asarray(logits, np.float64))
    combine = np.zeros([groups, size, num_experts, capacity])
    firsts = np.zeros([groups, num_experts])
    for g in range(groups):
        queues = [0] * num_experts
        # Stable, so that equal experts go by number.
        ranked = np.argsort(-probs[g], axis=-1, kind="stable")
        for choice in range(min(k, num_experts)):
            for s in range(size):
                if paddings[g, s]:
                    continue
                expert = ranked[s, choice]
                if choice == 0:
                    firsts[g, expert] += 1
                if queues[expert] < capacity:
                    chosen = probs[g, s, ranked[s, :k]]
                    weight = probs[g, s, expert] / (chosen.sum() if normalized else 1)
                    combine[g, s, expert, queues[expert]] = weight
                    queues[expert] += 1
    means = (probs * (1 - paddings[..., None])).mean(1)
    loss = (means * firsts / size).mean() * num_experts**2
    return combine, combine > 0, loss


def check_against_reference(logits, paddings, *, capacity, k, normalized=True):
    loss, routed = gating.route_top_k(
        jnp.asarray(paddings),
        jnp.float32(logits),
        capacity=capacity,
        num_choices=k,
        normalized=normalized,
    )
    dispatch, combine = routing.dispatch_and_combine(routed)
    want_combine, want_dispatch, want_loss = reference(
        np.float32(logits), paddings, capacity=capacity, k=k, normalized=normalized
    )
    np.testing.assert_array_equal(dispatch, want_dispatch)
    np.testing.assert_allclose(combine, want_combine, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(loss, want_loss, rtol=2e-5)
    # The tokens in the places say the same as the places of the tokens.
    want_slots = np.where(want_dispatch.any(1), want_dispatch.argmax(1), logits.shape[1])
    np.testing.assert_array_equal(routed.slots, want_slots)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("capacity", [1, 2, 7, 11])
def test_top_k_equals_queues_filled_in_a_loop(capacity, k, normalized):
    """9.3: token order in the group, first choices before second; paddings go nowhere."""
    check_against_reference(
        random_logits(), some_paddings(), capacity=capacity, k=k, normalized=normalized
    )


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_top_k_equals_the_loop_for_all_inputs(seed, capacity, num_experts, k):
    # Few distinct values, so that ties occur.
    logits = np.random.default_rng(seed).integers(-1, 2, [2, 4, num_experts])
    check_against_reference(logits, some_paddings(seed, (2, 4)), capacity=capacity, k=k)


@pytest.mark.parametrize(
    ("minimum", "factor", "capacity"),
    [(3, None, 3), (0, 2.0, 8), (9, 2.0, 9), (4, 1.5, 8), (6, 1.5, 6), (0, 0.0, 0), (2, 0.0, 2)],
)
def test_capacity(minimum, factor, capacity):
    """9.3: the factor asks for int(15 factor / 4), in fours, if it exceeds the minimum."""
    assert routing.expert_capacity(15, 4, minimum, factor) == capacity


def test_the_logit_cap_bounds_the_logits():
    logits = jnp.float32(random_logits()) * 9
    got = gating.route_top2(None, logits, capacity=S, logit_cap=0.5)
    want = gating.route_top2(None, 0.5 * jnp.tanh(logits / 0.5), capacity=S)
    np.testing.assert_allclose(got[1].weights, want[1].weights, rtol=2e-5)
    assert np.min(want[1].weights) > 0.2


def top2(paddings=None, capacity=S, **fields):
    paddings = some_paddings() if paddings is None else paddings
    return gshard_utils.top2_gating_on_logits(
        jnp.asarray(paddings), jnp.float32(random_logits()), E, capacity, jnp.float32, **fields
    )


def test_top2_is_top_k_for_two_and_reports_what_was_dropped():
    paddings = some_paddings()
    loss, combine, _, statistics = top2(capacity=2)
    want_combine, want_dispatch, want_loss = reference(random_logits(), paddings, capacity=2)
    np.testing.assert_allclose(combine, want_combine, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(loss, want_loss, rtol=2e-5)
    kept = want_dispatch.sum((2, 3))[paddings == 0]
    _, first, _ = reference(random_logits(), paddings, capacity=2, k=1)
    first_ratio = 1 - first.sum() / len(kept)
    second_ratio = 1 - (kept.sum() - first.sum()) / len(kept)
    counts = [np.sum(kept == n) for n in range(3)]
    np.testing.assert_allclose(statistics, [first_ratio, second_ratio, *counts], rtol=2e-5)
    assert first_ratio > 0


def test_weights_of_what_is_kept_can_sum_to_one():
    """legacy_mtf_behavior False: what is dropped goes to the other expert."""
    _, before, dispatch, _ = top2(capacity=2)
    _, after, same_dispatch, _ = top2(capacity=2, legacy_mtf_behavior=False)
    np.testing.assert_array_equal(dispatch, same_dispatch)
    sums = np.sum(before, (2, 3))
    assert np.any((sums > 1e-3) & (sums < 0.999))
    got = np.sum(after, (2, 3))
    np.testing.assert_allclose(got, np.any(dispatch, (2, 3)), rtol=2e-5, atol=2e-5)


def test_second_expert_by_chance():
    key = jax.random.PRNGKey(0)
    _, every, _, _ = top2(second_expert_policy="random", prng_key=key)
    _, combine, _, _ = top2()
    np.testing.assert_allclose(every, combine, rtol=2e-5)  # threshold 0.0: practically always
    options = {"second_expert_policy": "random", "second_expert_threshold": 0.9}
    draws = [
        top2(np.zeros([G, S], np.float32), prng_key=jax.random.PRNGKey(i), **options)[3][4]
        for i in range(40)
    ]
    share = np.mean(draws) / (G * S)
    second = np.sort(softmax(random_logits()), -1)[..., -2:]
    want = np.minimum(second[..., 0] / second.sum(-1) / 0.9, 1).mean()
    assert abs(share - want) < 0.06


def test_second_expert_by_sampling():
    logits = jnp.log(jnp.array([0.5, 0.4, 0.1, 1e-9]))[None, None]
    logits = jnp.broadcast_to(logits, [1, 3000, 4])
    _, routed = gating.route_top2(
        None, logits, capacity=3000, policy="sampling", key=jax.random.PRNGKey(0)
    )
    assert np.all(np.asarray(routed.experts)[..., 0] == 0)
    shares = np.bincount(np.asarray(routed.experts)[..., 1].ravel(), minlength=4) / 3000
    np.testing.assert_allclose(shares, [0, 0.8, 0.2, 0], atol=0.03)
    np.testing.assert_allclose(np.sum(routed.weights, -1), 1.0, rtol=2e-5)


def test_one_expert_gets_all():
    logits = jnp.zeros([1, 5, 1])
    loss, routed = gating.route_top2(None, logits, capacity=5)
    np.testing.assert_array_equal(routed.weights, np.ones([1, 5, 1]))
    np.testing.assert_allclose(loss, 1.0)


def test_all_padding_gives_zeros_without_nan():
    loss, combine, dispatch, statistics = top2(np.ones([G, S], np.float32))
    for array in (loss, combine, dispatch, *statistics):
        np.testing.assert_array_equal(array, np.zeros_like(array))


def choose(probs, paddings, capacity):
    """Combine tensor of experts that choose, in a loop."""
    combine = np.zeros([G, S, E, capacity])
    for g in range(G):
        for e in range(E):
            scores = np.where(paddings[g] > 0, 0, probs[g, :, e])
            for c, s in enumerate(np.argsort(-scores, kind="stable")[:capacity]):
                combine[g, s, e, c] = scores[s]
    return combine


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_expert_choice(factor):
    """9.3: k = int(S // E factor), softmax over experts, no normalization."""
    loss, combine, dispatch, _ = gshard_utils.expert_choice_gating_on_logits(
        jnp.float32(random_logits()), E, 0, jnp.float32, capacity_factor=factor
    )
    k = int(S // E * factor)
    want = choose(softmax(random_logits()), np.zeros([G, S]), k)
    assert combine.shape == (G, E, k)
    got = np.einsum("gec,gecs->gsec", combine, dispatch)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert loss == 0


@pytest.mark.parametrize("capacity", [1, 3, 11])
def test_expert_choice_v2_leaves_padding(capacity):
    paddings = some_paddings()
    _, combine, dispatch, _ = gshard_utils.expert_choice_gating_on_logits_v2(
        jnp.asarray(paddings), jnp.float32(random_logits()), E, capacity, jnp.float32
    )
    want = choose(softmax(random_logits()), paddings, min(capacity, S))
    np.testing.assert_allclose(combine, want, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(dispatch, want > 0)
    assert not np.any(np.asarray(dispatch)[paddings > 0])


def test_padding_comes_after_tokens_of_probability_zero():
    logits = jnp.array([[[0.0, 0.0], [300.0, 0.0], [300.0, 0.0], [300.0, 0.0]]])
    chosen = routing.choose_tokens(logits, jnp.array([[1.0, 0.0, 0.0, 1.0]]), capacity=3)
    assert set(np.asarray(chosen.tokens)[0, 1, :2]) == {1, 2}
    np.testing.assert_array_equal(chosen.weights[0, 1], np.zeros(3))


@pytest.mark.parametrize(
    ("sizes", "number"),
    [((7, 3, 0, 2.0), 4), ((7, 3, 5, 0.0), 5), ((2, 3, 0, 2.0), 1), ((4, 2, 0, 9.0), 4)],
)
def test_an_expert_chooses_from_one_token_to_all(sizes, number):
    assert gating.tokens_per_expert(*sizes) == number


def test_dense_top2_gives_weights_of_all_experts():
    paddings = some_paddings()
    loss, combine, _, _ = gshard_utils.compute_gating(
        jnp.asarray(paddings), jnp.float32(random_logits()), E, 0, jnp.float32, "dense_top2"
    )
    want, _, _ = reference(random_logits(), paddings, capacity=2 * S)
    np.testing.assert_allclose(combine, want.sum(-1), rtol=2e-5, atol=2e-5)
    assert loss == 0


@pytest.mark.parametrize("name", ["top2", "expert_choice", "expert_choice_v2"])
def test_compute_gating_goes_by_name(name):
    paddings, logits = jnp.asarray(some_paddings()), jnp.float32(random_logits())
    sizes = (E, 2, jnp.bfloat16)
    got = gshard_utils.compute_gating(paddings, logits, *sizes, gating_func=name)
    if name == "top2":
        want = gshard_utils.top2_gating_on_logits(paddings, logits, *sizes)
    elif name == "expert_choice":
        want = gshard_utils.expert_choice_gating_on_logits(logits, *sizes)
    else:
        want = gshard_utils.expert_choice_gating_on_logits_v2(paddings, logits, *sizes)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert got[1].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gating_func": "top3"}, "gating_func is 'top3', expected 'top2'"),
        ({"second_expert_policy": "most"}, "second_expert_policy is 'most', expected one of"),
        ({"second_expert_policy": "sampling"}, "needs a random key; prng_key is None"),
        ({"experts_dim": 4}, r"logits have shape \(2, 7, 3\).*E = experts_dim = 4"),
        ({"expert_capacity_dim": 0}, "expert_capacity_dim = 0 and capacity_factor = None leave no"),
    ],
)
def test_errors_name_the_argument(fields, message):
    sizes = {"experts_dim": E, "expert_capacity_dim": 2, "fprop_dtype": jnp.float32}
    with pytest.raises(ValueError, match=message):
        gshard_utils.compute_gating(None, jnp.float32(random_logits()), **{**sizes, **fields})


def test_importance_is_refused():
    with pytest.raises(NotImplementedError, match="importance is not supported"):
        top2(importance=jnp.ones([G, S]))

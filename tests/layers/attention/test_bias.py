"""Relative position bias of T5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions
from praxis.layers.attention.bias import relative_buckets

N, R, T = 3, 8, 7


def build(**fields):
    fields = {
        "num_heads": N,
        "relative_attention_num_buckets": R,
        "relative_attention_max_distance": 12,
        **fields,
    }
    return pax_fiddle.build(pax_fiddle.Config(attentions.RelativeBias, name="bias", **fields))


def variables(layer):
    wrb = np.random.default_rng(0).standard_normal((N, layer.relative_attention_num_buckets))
    return {"params": {"wrb": jnp.float32(wrb)}}


@pytest.mark.parametrize(
    ("bidirectional", "num_buckets", "ahead", "expected"),
    [
        (True, 8, [5, 2, 0, 12, -3, -1, -15, 1], [7, 6, 0, 7, 2, 1, 3, 5]),
        (False, 4, [5, 2, 0, 12, -3, -1, -15], [0, 0, 0, 0, 2, 1, 3]),
    ],
)
def test_buckets(bidirectional, num_buckets, ahead, expected):
    """28, attentions: the published tables of buckets."""
    buckets = relative_buckets(
        jnp.array(ahead), num_buckets=num_buckets, max_distance=8, bidirectional=bidirectional
    )
    np.testing.assert_array_equal(buckets, expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_bias_is_the_bucket_of_the_distance(bidirectional):
    layer = build(bidirectional=bidirectional, use_length_as_position=False)
    query = jnp.array([[0, 1, 2, 0, 1], [4, 3, 9, 30, 2]])
    key = jnp.array([[0, 1, 2, 3], [7, 0, 5, 40]])
    weights = variables(layer)
    out = layer.apply(weights, query, key)
    wrb, want = np.asarray(weights["params"]["wrb"]), np.zeros([2, N, 5, 4])
    for b, t, s in np.ndindex(2, 5, 4):
        ahead = relative_buckets(
            key[b, s] - query[b, t], num_buckets=R, max_distance=12, bidirectional=bidirectional
        )
        want[b, :, t, s] = wrb[:, int(ahead)]
    np.testing.assert_allclose(out, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("by_length", [False, True])
def test_training_and_evaluation_agree_on_packed_rows(by_length):
    """6.3, improved: positions are the same in both; within a segment, either kind will do."""
    layer = build(use_length_as_position=by_length)
    positions = jnp.array([[0, 1, 2, 0, 1, 2, 3]])
    outs = []
    for do_eval in (False, True):
        hparams = base_layer.JaxContext.HParams(do_eval=do_eval)
        with base_layer.JaxContext.new_context(hparams=hparams):
            outs.append(layer.apply(variables(layer), positions))
    np.testing.assert_array_equal(outs[0], outs[1])
    plain = layer.apply(variables(layer), jnp.arange(T)[jnp.newaxis])
    np.testing.assert_array_equal(outs[0][:, :, 3:, 3:], plain[:, :, 3:, 3:])


def test_steps_are_rows_of_the_call():
    """6.3, improved: a step always has the position `time_step`, known or traced."""
    layer = build()
    weights = variables(layer)
    full = layer.apply(weights, jnp.arange(T)[jnp.newaxis])

    @jax.jit
    def step(t):
        return layer.apply(weights, T, t, 2, method="at_step")

    for t in (0, 3, 5):
        np.testing.assert_array_equal(step(t), full[:, :, t : t + 2])
        with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
            one = layer.apply(weights, seq_length=T, time_step=t, method="extend_step")
        np.testing.assert_array_equal(one, full[:, :, t : t + 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 0}, "'bias': num_heads is 0"),
        ({"relative_attention_num_buckets": 1}, "buckets is 1, expected at least 2, with"),
        (
            {"relative_attention_num_buckets": 5, "bidirectional": True},
            "buckets is 5, expected an even number, at least 4, with bidirectional = True",
        ),
        ({"relative_attention_max_distance": 4}, "distance is 4.*with .*num_buckets = 8"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields).init(jax.random.PRNGKey(0), jnp.arange(T)[jnp.newaxis])


def test_positions_that_are_missing_are_refused():
    layer = build()
    with pytest.raises(ValueError, match="'bias': query_segment_pos is None, expected positions"):
        layer.apply(variables(layer), None)

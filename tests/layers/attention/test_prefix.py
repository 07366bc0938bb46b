"""Decoding of samples that share the cache of a prompt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions

B, D, N, H = 2, 6, 3, 4
PROMPT, MIDDLE, LAST = 4, 2, 3  # steps of the prompt and of two suffixes
FIRST_SAMPLES, MORE_SAMPLES = 2, 3
TOTAL = PROMPT + MIDDLE + LAST
CACHES = [base_layer.DECODE_CACHE, base_layer.PREFIX_DECODE_CACHE]


def config(**fields):
    fields = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, **fields}
    return pax_fiddle.Config(attentions.DotProductAttentionWithLPB, name="att", **fields)


def normal(seed, *shape):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def random_params(layer, *args):
    init = jax.eval_shape(lambda: layer.init(jax.random.PRNGKey(0), *args))
    leaves, tree = jax.tree.flatten(init)
    return jax.tree.unflatten(tree, [0.5 * normal(i, *x.shape) for i, x in enumerate(leaves)])


def samples():
    """Sequences of all samples, which agree as far as they share a prefix."""
    rows = B * FIRST_SAMPLES * MORE_SAMPLES
    prompt = jnp.repeat(normal(1, B, PROMPT, D), rows // B, axis=0)
    middle = jnp.repeat(normal(2, B * FIRST_SAMPLES, MIDDLE, D), MORE_SAMPLES, axis=0)
    return jnp.concatenate([prompt, middle, normal(3, rows, LAST, D)], axis=1)


class Decoder:
    """A layer with its caches."""

    def __init__(self, layer, variables):
        self.layer, self.variables = layer, variables

        @functools.partial(jax.jit, static_argnames="is_cross_attention")
        def step(variables, x, **kwargs):
            return layer.apply(
                variables, x, method="extend_step", mutable=[base_layer.DECODE_CACHE], **kwargs
            )

        self._step = step

    def call(self, *args, mutable=CACHES, **kwargs):
        out, updated = self.layer.apply(self.variables, *args, mutable=mutable, **kwargs)
        self.variables = {**self.variables, **updated}
        return out

    def prompt(self, x):
        self.call(x, x, x, attentions.causal_mask(x))

    def broadcast(self, num_samples, length):
        self.call(num_samples, length, method="lazy_broadcast_prefix")

    def step(self, x, mask, time_step, **kwargs):
        fields = {"atten_mask": mask, "time_step": time_step, "segment_pos": None, **kwargs}
        out, updated = self._step(self.variables, x, **fields)
        self.variables = {**self.variables, **updated}
        return out


FIELDS = {
    "plain": {},
    "rotary_scaled": {"use_rotary_position_emb": True, "scale_logits_by_head_dims": True},
    "relative_bias": {"relative_bias_tpl": pax_fiddle.Config(attentions.RelativeBias)},
}


def started(**fields):
    """A decoder after the prompt and two broadcasts, and the outputs of the full pass."""
    layer = pax_fiddle.build(config(**fields))
    x = samples()
    mask = attentions.causal_mask(x)
    variables = random_params(layer, x, x, x, mask)
    full, _ = jax.jit(layer.apply)(variables, x, x, x, mask)
    decoder = Decoder(layer, variables)
    decoder.prompt(x[:: FIRST_SAMPLES * MORE_SAMPLES, :PROMPT])
    return decoder, x, mask, full


@pytest.mark.parametrize("name", FIELDS)
def test_every_sample_equals_the_full_pass(name):
    """28, attentions: prefill of 4, broadcast x2 (suffix 2), then x3: samples = full forward."""
    decoder, x, mask, full = started(**FIELDS[name])
    decoder.broadcast(FIRST_SAMPLES, MIDDLE)
    for t in range(PROMPT, PROMPT + MIDDLE):
        step_mask = mask[:, :, t, : PROMPT + MIDDLE]
        out = decoder.step(x[::MORE_SAMPLES, t], step_mask, jnp.int32(t))
        np.testing.assert_allclose(out, full[::MORE_SAMPLES, t], rtol=2e-5, atol=2e-5)
    decoder.broadcast(MORE_SAMPLES, LAST)
    length = decoder.layer.apply(decoder.variables, method="decoding_state_sequence_length")
    assert length == TOTAL
    by_sample = jnp.broadcast_to(mask, (x.shape[0], *mask.shape[1:]))
    for t in range(PROMPT + MIDDLE, TOTAL):
        out = decoder.step(x[:, t], by_sample[:, :, t], jnp.int32(t))
        np.testing.assert_allclose(out, full[:, t], rtol=2e-5, atol=2e-5)
    shapes = {
        collection: {k: v.shape for k, v in decoder.variables[collection].items() if k[:3] == "key"}
        for collection in CACHES
    }
    lead = (B, FIRST_SAMPLES, MORE_SAMPLES)
    assert shapes == {
        "decoder_cache": {"key_state": (*lead, LAST, N, H)},
        "prefix_decoder_cache": {
            "key_state_0_pfx": (B, PROMPT, N, H),
            "key_state_1_pfx": (*lead[:2], MIDDLE, N, H),
        },
    }


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("positions", [False, True])
def test_several_steps_at_once_equal_the_full_pass(name, positions):
    """28, attentions: extend n steps equals the full forward."""
    decoder, x, mask, full = started(**FIELDS[name])
    num_samples, suffix = FIRST_SAMPLES * MORE_SAMPLES, MIDDLE + LAST
    decoder.broadcast(num_samples, suffix)
    given = jnp.tile(jnp.arange(PROMPT, TOTAL), (x.shape[0], 1)) if positions else None
    out = decoder.step(x[:, PROMPT:], mask[:, :, PROMPT:], PROMPT, segment_pos=given)
    np.testing.assert_allclose(out, full[:, PROMPT:], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8], ids=["bfloat16", "int8"])
def test_prefixes_keep_the_dtype_of_the_cache(dtype):
    decoder, x, mask, full = started(decode_cache_dtype=dtype)
    num_samples, suffix = FIRST_SAMPLES * MORE_SAMPLES, MIDDLE + LAST
    decoder.broadcast(num_samples, suffix)
    out = decoder.step(x[:, PROMPT:], mask[:, :, PROMPT:], PROMPT)
    # Numbers of 8 bits.
    np.testing.assert_allclose(out, full[:, PROMPT:], rtol=5e-2, atol=5e-2)
    prefix = decoder.variables["prefix_decoder_cache"]["key_state_0_pfx"]
    assert prefix.dtype == decoder.variables["decoder_cache"]["key_state"].dtype == dtype


def test_right_alignment_moves_prefixes_into_the_suffix():
    """28, attentions: prefix and suffix states move to the right, the prefix becomes empty."""
    decoder, x, mask, _ = started()
    num_samples, suffix = FIRST_SAMPLES * MORE_SAMPLES, MIDDLE + LAST
    decoder.broadcast(num_samples, suffix)
    decoder.step(x[:, PROMPT:], mask[:, :, PROMPT:], PROMPT)
    _, whole = decoder.layer.apply(
        {"params": decoder.variables["params"]}, x, x, x, mask, mutable=["decoder_cache"]
    )

    def roll(state, batch_dim, time_dim):
        assert (batch_dim, time_dim) == (0, 1)
        return jnp.roll(state, 1, axis=time_dim)

    kept = PROMPT - 1
    decoder.call(kept, roll, method="right_align_decode_state_with_prefix")
    expected = jnp.roll(whole["decoder_cache"]["key_state"][:, 1:], 1, axis=1)
    state = decoder.variables["decoder_cache"]["key_state"]
    assert state.shape == (B, num_samples, kept + suffix, N, H)
    np.testing.assert_allclose(state.reshape(expected.shape), expected, rtol=2e-5, atol=2e-5)
    assert decoder.variables["prefix_decoder_cache"]["key_state_0_pfx"].shape == (B, 0, N, H)
    # The aligned cache serves on: undo the rotation of time, and attend to what was kept.
    unroll = lambda state, _, time_dim: jnp.roll(state, -1, axis=time_dim)  # noqa: E731
    decoder.call(unroll, method="transform_decode_state")
    seen = jnp.zeros([1, 1, kept + suffix])
    out = decoder.step(x[:, -1], seen, kept + suffix - 1)
    without_first = mask.at[:, :, :, 0].set(-0.7 * float(np.finfo(np.float32).max))
    expected_out, _ = decoder.layer.apply(
        {"params": decoder.variables["params"]}, x, x, x, without_first
    )
    np.testing.assert_allclose(out, expected_out[:, -1], rtol=2e-5, atol=2e-5)


def test_transformations_get_the_time_axis_of_the_suffix():
    decoder, *_ = started()
    decoder.broadcast(2, 3)
    seen = []

    def note(state, batch_dim, time_dim):
        seen.append((state.shape, batch_dim, time_dim))
        return state

    decoder.call(note, method="transform_decode_state")
    assert seen == [((B, 2, 3, N, H), 0, 2)] * 2


def test_serves_as_a_template_of_cross_attention():
    """6.8, improved: extend_step takes is_cross_attention."""
    layer = pax_fiddle.build(config())
    source, query = normal(1, B, 5, D), normal(2, 2 * B, 1, D)
    mask = jnp.zeros([1, 1, 1, 5])
    variables = random_params(layer, source, source, source, mask)
    decoder = Decoder(layer, variables)
    decoder.call(source, source, source, mask)
    out = decoder.step(query[:, 0], mask[:, 0], 0, is_cross_attention=True)
    twice = jnp.repeat(source, 2, axis=0)
    expected, _ = layer.apply(variables, query, twice, twice, mask)
    np.testing.assert_allclose(out, expected[:, 0], rtol=2e-5, atol=2e-5)


def test_what_cannot_work_is_refused():
    x, mask = normal(1, B, PROMPT, D), jnp.zeros([1, 1, 1, PROMPT])
    with pytest.raises(NotImplementedError, match="'att': dconv_qkv = True: the convolution"):
        pax_fiddle.build(config(dconv_qkv=True)).init(jax.random.PRNGKey(0), x, x, x, mask)
    decoder, *_ = started()
    with pytest.raises(ValueError, match="num_suffix_samples = 0 and suffix_length = 3, expected"):
        decoder.broadcast(0, 3)
    decoder.broadcast(2, 3)
    step_mask = jnp.zeros([1, 1, PROMPT + 3])
    with pytest.raises(ValueError, match=r"a batch of 4 with samples, but .* a batch of 2"):
        decoder.step(x[:, 0], step_mask, PROMPT)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 1, 6\), expected \[B, D\].*or \[B, T, D"):
        decoder.step(jnp.ones([B, 1, 1, D]), step_mask, PROMPT)
    with pytest.raises(ValueError, match=r"time_step is -1, but the cache has room for 3"):
        decoder.call(
            jnp.ones([4, D]),
            atten_mask=step_mask,
            time_step=PROMPT - 1,
            segment_pos=None,
            method="extend_step",
        )

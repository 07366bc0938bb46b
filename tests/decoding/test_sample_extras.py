"""What sampling can do besides: guidance, candidates, best ends, callbacks, shared prefixes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, decoder_utils, pax_fiddle, py_utils, sample_decode
from praxis.decoding import guidance
from praxis.layers import attentions, models, transformer_models, transformers
from praxis.layers.model import generate

NestedMap = py_utils.NestedMap
VOCAB, EOS, STEPS, WIDTH = 11, 0, 6, 5
LENGTHS = (3, 1, 5, 2)
Sample = decoder_hparams.SampleDecoderHParams
Beam = decoder_hparams.BeamSearchHParams
FIELDS: dict[str, Any] = {
    "seqlen": 9,
    "max_decode_steps": STEPS,
    "fprop_for_prefix": True,
    "eos_id": EOS,
}


def fields(**changes: Any) -> dict[str, Any]:
    return {**FIELDS, **changes}


class Guided(models.LanguageModel):
    """A model whose unconditioned rows are the rows without their first token."""

    def _prepare_guidance_decode_data(self, input_batch):
        def pairs(x, y):
            return jnp.stack([x, y], axis=1).reshape(-1, *x.shape[1:])

        batch = NestedMap(input_batch)
        other = jnp.where(jnp.arange(WIDTH)[jnp.newaxis] == 0, 1, batch.ids)
        batch.ids = pairs(batch.ids, other)
        batch.paddings = pairs(batch.paddings, batch.paddings)
        return batch


def config(decoder, *, shared=False, cls=models.LanguageModel):
    lm = pax_fiddle.Config(transformer_models.TransformerLm, model_dims=8, vocab_size=VOCAB)
    stack = pax_fiddle.Config(
        transformers.StackedTransformer, num_layers=1, hidden_dims=13, num_heads=2
    )
    if shared:
        stack.transformer_layer_params_tpl.tr_atten_tpl = pax_fiddle.Config(
            attentions.DotProductAttentionWithLPB
        )
    lm.stacked_transformer_tpl = stack
    return pax_fiddle.Config(cls, name="model", lm_tpl=lm, decoder_tpl=decoder)


def batch():
    rng = np.random.default_rng(0)
    paddings = np.arange(WIDTH)[np.newaxis] >= np.asarray(LENGTHS)[:, np.newaxis]
    ids = jnp.asarray(rng.integers(1, VOCAB, paddings.shape), jnp.int32)
    paddings = jnp.asarray(paddings, jnp.float32)
    return NestedMap(ids=ids, paddings=paddings, labels=ids, weights=1 - paddings)


@functools.cache
def weights():
    """Random variables, which all models here have in common."""
    model = pax_fiddle.build(config(Sample(**FIELDS)))
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(1), batch())
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: jnp.float32(0.7 * rng.standard_normal(x.shape)), shapes)


def decoding(decoder, *, result_callback=None, raw=False, **fields):
    """A function of variables and a batch that gives the results of `decode`."""
    model = pax_fiddle.build(config(decoder, **fields))

    def run(variables, inputs):
        return model.apply(
            variables,
            inputs,
            result_callback,
            raw,
            method=model.decode,
            mutable=[base_layer.DECODE_CACHE, base_layer.PREFIX_DECODE_CACHE],
            rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
        )[0][1]

    return run


def decode(decoder, inputs=None, **fields):
    return jax.jit(decoding(decoder, **fields))(weights(), batch() if inputs is None else inputs)


@functools.cache
def greedy():
    """The likeliest tokens after the prefixes of the batch."""
    return decode(Sample(**FIELDS, k=1))


@functools.cache
def endless():
    """The likeliest tokens without an end, and the candidates for them."""
    inputs = batch() | {"num_per_token_logprobs": jnp.asarray([0, 1, 3, 9])}
    return decode(Sample(**fields(eos_id=99), k=1), inputs)


def assert_same(one, other, names=("output_ids", "decode_lengths", "logprobs")):
    for name in names:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "decoder",
    [
        Sample(**FIELDS, num_samples=3, k=4),
        Sample(**fields(max_decode_steps=[2, STEPS]), num_samples=2, k=4),
        Beam(**FIELDS, beam_size=3),
    ],
    ids=["samples", "growing", "beam"],
)
def test_a_shared_prefix_changes_nothing(decoder):
    """Behaviour 28, LPB multi-sample = plain."""
    lazy = decoder.clone()
    lazy.lazy_prefix_broadcast = True
    assert_same(decode(lazy, shared=True), decode(decoder))


def test_vanilla_is_one_sample_without_its_axis():
    decoder = Sample(**FIELDS, k=0)
    inputs = batch() | {"gumbel_prng_key": jnp.arange(4)}
    want = decode(decoder, inputs)
    decoder.vanilla_sample_decode = True
    got = decode(decoder, inputs)
    assert got.output_ids.shape == (4, WIDTH + STEPS)
    for name in ("output_ids", "decode_lengths", "logprobs"):
        np.testing.assert_array_equal(got[name], want[name][:, 0])


def test_guidance_of_scale_one_is_none_and_scales_mix():
    decoder = Sample(**FIELDS, k=1, num_samples=2, cf_guidance_scale=1.0)
    result = decode(decoder, cls=Guided)
    for sample in range(2):
        assert_same({name: x[:, sample : sample + 1] for name, x in result.items()}, greedy())
    scales = batch() | {"cf_guidance_scale": jnp.asarray([[1.0, 3.0]] * 4)}
    mixed = decode(decoder, scales, cls=Guided)
    assert mixed.output_ids.shape == (4, 2, WIDTH + STEPS)
    assert not np.array_equal(mixed.output_ids[:, 0], mixed.output_ids[:, 1])
    logits = np.random.default_rng(1).standard_normal((4, 3))
    got = guidance.mix(
        jnp.float32(logits), guidance.scale_of_samples(jnp.asarray([2.0, 0.5]), 2, 1)
    )
    want = logits[1::2] + np.array([[2.0], [0.5]]) * (logits[::2] - logits[1::2])
    np.testing.assert_allclose(got[::2], want, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(got[::2], got[1::2])
    np.testing.assert_array_equal(guidance.scale_of_samples([1.0, 2.0], 2, 2), [[1, 2], [1, 2]])
    with pytest.raises(ValueError, match=r"cf_guidance_scale has shape \(3,\), expected a number"):
        guidance.scale_of_samples([1.0, 2.0, 3.0], 2, 2)


def test_candidates_are_the_likeliest_tokens_of_each_step():
    out = endless()
    ids, logprobs = out.top_candidate_ids[:, 0], out.top_candidate_logprobs[:, 0]
    for row, (number, length) in enumerate(zip([0, 1, 3, 5], LENGTHS, strict=True)):
        assert (ids[row, :STEPS, number:] == 0).all()
        assert (logprobs[row, :STEPS, number:] == 1.0).all()
        assert (np.diff(logprobs[row, :STEPS, :number]) <= 0).all()
        if number:
            np.testing.assert_array_equal(
                ids[row, :STEPS, 0], out.output_ids[row, 0, length : length + STEPS]
            )
    assert ids.shape[-1] == sample_decode.MAX_NUM_PER_TOKEN_LOGPROBS


def test_best_end_is_where_the_text_is_likeliest():
    result = NestedMap(
        output_ids=jnp.asarray([[5, 6, 7, 8]]),
        logprobs=jnp.asarray([[1.0, -0.5, -0.2, -4.0]]),
        eos_logprobs=jnp.asarray([[1.0, -3.0, -2.0, -1.0]]),
        eos_ids=jnp.full((1, 4), 2),
        decode_lengths=jnp.asarray([4]),
    )
    out = decoder_utils.collect_results_to_optimize_eos(result, 10)
    np.testing.assert_array_equal(out.output_ids, [[5, 6, 7, 2]])  # -0.7 - 1 > -0.5 - 2 > -3
    np.testing.assert_array_equal(out.decode_lengths, [14])
    whole = decode(Sample(**FIELDS, k=1, optimize_eos=True))
    for row, length in enumerate(LENGTHS):
        end = int(whole.decode_lengths[row, 0])
        ids = np.asarray(whole.output_ids[row, 0])
        assert ids[end - 1] == EOS
        assert (ids[length : end - 1] != EOS).all()
        assert (ids[end:] == 0).all()


def test_callback_gets_all_tokens_in_order():
    got, events = [], []
    callback = decoder_utils.StreamingResultCallback(
        lambda new: jax.debug.callback(got.append, new, ordered=True),
        interval_steps=4,
        init_fn=events.append,
        done_fn=lambda: events.append("done"),
    )
    out = decode(Sample(**FIELDS, k=1), result_callback=callback)
    jax.effects_barrier()
    assert events == [(4, 1), "done"]
    ids = np.concatenate([new.output_ids[:, 0] for new in got], axis=1)
    numbers = sum(new.decode_lengths[:, 0] for new in got)
    np.testing.assert_array_equal(numbers, out.decode_lengths[:, 0] - np.asarray(LENGTHS))
    for row, length in enumerate(LENGTHS):
        want = np.zeros(ids.shape[1])
        want[:STEPS] = out.output_ids[row, 0, length : length + STEPS]
        np.testing.assert_array_equal(ids[row], want)
    with pytest.raises(ValueError, match="interval_steps is 0, expected at least 1 step"):
        decoder_utils.StreamingResultCallback(print, interval_steps=0)


def test_blocks_of_candidates_raise_the_log_probability():
    """The likeliest of 64 draws of each token is nearly always the likeliest token."""

    def total(out):
        return np.where(out.logprobs >= 1, 0, out.logprobs).sum(-1)

    free = total(decode(Sample(**fields(eos_id=99), k=0, num_samples=2)))
    controlled = decoder_utils.ControlledDecodingHParams(interval=1, block_num_samples=64)
    decoder = Sample(**fields(eos_id=99), k=0, num_samples=2, controlled_decoding=controlled)
    out = decode(decoder)
    assert out.output_ids.shape == (4, 2, WIDTH + STEPS)
    assert total(out).mean() > free.mean()
    assert total(out).max() <= total(endless()).max() + 1e-4
    same = np.asarray(out.output_ids == endless().output_ids).mean()
    assert same > 0.9


def test_loop_state_for_suffixes():
    run = decoding(Sample(**FIELDS, k=1, num_samples=2), raw=True)
    state = jax.eval_shape(run, weights(), batch())
    assert state.output_ids.shape[0] == 8 and "step" in state


# ---- slots: texts that take one step together, each with its own limits


@functools.cache
def slots():
    """A function of the limits [B] that gives the states after each step.

    The slots start with the prompts of the batch.
    """
    options = Sample(**FIELDS, k=1, temperature=0.0)
    model = pax_fiddle.build(config(options))

    def run(model, inputs, limits):
        arguments = generate.arguments_for(model, options, inputs, None)
        lm = model.lm
        arguments["fprop_fn"](lm, arguments["prefix_ids"], arguments["prefix_paddings"])
        state = sample_decode.sample_init_decode_state(
            lm,
            arguments["prefix_ids"][:, :WIDTH],
            max_decode_steps=STEPS,
            prefix_lengths=jnp.asarray(LENGTHS),
            transform_state_fn=arguments["transform_state_fn"],
        )
        state.update(per_example_max_decode_steps=limits)
        states = []
        for _ in range(FIELDS["seqlen"] - WIDTH):
            state = sample_decode.sample_decoding_step(
                lm, state, arguments["extend_step_fn"], eos_id=EOS
            )
            states.append(dict(state))
        return states

    apply = jax.jit(
        lambda variables, limits: model.apply(
            variables,
            batch(),
            limits,
            method=lambda layer, inputs, limits: run(layer, inputs, limits),
            mutable=[base_layer.DECODE_CACHE],
            rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
        )[0]
    )
    return lambda limits: apply(weights(), jnp.asarray(limits))


def test_greedy_steps_give_what_decoding_gives():
    want = greedy()
    states = slots()([STEPS] * 4)
    for row, length in enumerate(LENGTHS):
        end = int(want.decode_lengths[row, 0])
        tokens = [int(state["output_ids"][row]) for state in states]
        logprobs = [float(state["logprobs"][row]) for state in states]
        count = min(end - length, len(states))
        assert tokens[:count] == want.output_ids[row, 0, length : length + count].tolist()
        np.testing.assert_allclose(
            logprobs[:count], want.logprobs[row, 0, length : length + count], rtol=2e-5, atol=2e-5
        )


def test_slots_stop_at_their_own_limits():
    states = slots()([1, 2, 3, 4])
    eos = np.asarray(states[-1]["has_eos"])
    done = np.stack([state["done"] for state in states])
    assert not eos.all()
    for row, limit in enumerate((1, 2, 3, 4)):
        if not eos[row]:
            np.testing.assert_array_equal(done[:, row], np.arange(1, 5) >= limit)
            assert states[-1]["decode_lengths"][row] == LENGTHS[row] + limit
            assert all(int(state["output_ids"][row]) == 0 for state in states[limit:])
            assert all(float(state["logprobs"][row]) == 1.0 for state in states[limit:])

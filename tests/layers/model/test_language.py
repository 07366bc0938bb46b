"""LanguageModel: metrics, and generation with caches against generation without."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils, token_samplers
from praxis.layers import models, transformer_models, transformers
from praxis.layers.transformer_models import LanguageModelType

NestedMap = py_utils.NestedMap
CACHE = base_layer.DECODE_CACHE
VOCAB, EOS, WIDTH = 11, 0, 5
Greedy = decoder_hparams.GreedyDecoderHParams
Sample = decoder_hparams.SampleDecoderHParams


def config(*, layers=1, repeated=False, rotary=False, decoder=None, **fields):
    block = pax_fiddle.Config(
        transformers.StackedTransformer, num_layers=layers, hidden_dims=13, num_heads=2
    )
    lm = pax_fiddle.Config(transformer_models.TransformerLm, model_dims=8, vocab_size=VOCAB)
    lm.stacked_transformer_tpl = block
    if repeated:
        block.num_layers = 1
        lm.stacked_transformer_tpl = pax_fiddle.Config(
            transformers.StackedTransformerRepeated, block=block, x_times=2
        )
    if rotary:
        block.transformer_layer_params_tpl.tr_atten_tpl.use_rotary_position_emb = True
        lm.position_emb_tpl = None
    model = pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm, **fields)
    if decoder is not None:
        model.decoder_tpl = decoder
    return model


def batch(lengths=(3, 1, 5), seed=0):
    rng = np.random.default_rng(seed)
    shape = (len(lengths), WIDTH)
    paddings = np.arange(WIDTH)[np.newaxis] >= np.asarray(lengths)[:, np.newaxis]
    return NestedMap(
        ids=jnp.asarray(rng.integers(1, VOCAB, shape), jnp.int32),
        labels=jnp.asarray(rng.integers(1, VOCAB, shape), jnp.int32),
        paddings=jnp.asarray(paddings, jnp.float32),
        weights=jnp.asarray(1.0 - paddings, jnp.float32),
    )


def noisy_variables(model, inputs):
    """Random variables, so that biases and scales differ from their initial values."""
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(1), inputs)
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: jnp.float32(0.7 * rng.standard_normal(x.shape)), shapes)


@functools.cache
def weights():
    """The variables of `config()` and of any other model with the same tree."""
    return noisy_variables(pax_fiddle.build(config()), batch())


def compiled(model_config):
    """A function of a batch, variables and a seed that gives the results of `decode`."""
    model = pax_fiddle.build(model_config)

    @jax.jit
    def run(variables, inputs, key):
        rngs = {"random": key}
        return model.apply(variables, inputs, rngs=rngs, method=model.decode, mutable=[CACHE])

    return lambda inputs, variables, seed=7: run(variables, inputs, jax.random.PRNGKey(seed))[0][1]


def decode(model_config, inputs, variables=None, seed=7):
    """The results of `decode`, with `weights()` if no variables are given."""
    return compiled(model_config)(inputs, weights() if variables is None else variables, seed)


@functools.cache
def greedy():
    """The likeliest tokens after the prefixes of `batch()`."""
    decoder = Greedy(seqlen=9, max_decode_steps=4, fprop_for_prefix=True, eos_id=EOS)
    return decode(config(decoder=decoder), batch())


@functools.cache
def free_samples():
    """Samples of `batch()` from a distribution so flat that some end at once."""
    return decode(sampler(**FLAT), batch())


def log_probs_of(model_config, variables, ids):
    """[B, T, V], from the whole model."""
    model = pax_fiddle.build(model_config)
    apply = jax.jit(functools.partial(model.apply, method=lambda m, x, p: m.lm(x, p).log_probs))
    return apply(variables, ids, jnp.zeros(ids.shape))


# ---- loss ---------------------------------------------------------------------------------------


def test_metrics_of_a_batch_are_the_weighted_mean_of_its_parts():
    model = pax_fiddle.build(config(apply_eval_sample_weights=True, report_strict_acc=True))
    inputs = batch()
    variables = noisy_variables(model, inputs | {"eval_sample_weights": jnp.ones([3])})

    apply = jax.jit(model.apply)

    def metrics(weights):
        return apply(variables, inputs | {"eval_sample_weights": jnp.float32(weights)})[0]

    whole = metrics([1, 1, 1])
    parts = [metrics([1, 0, 1]), metrics([0, 1, 0])]
    assert set(whole) == {
        "total_loss",
        "avg_xent",
        "aux_loss",
        "log_pplx",
        "fraction_of_correct_next_step_preds",
        "num_predictions",
        "acc_strict",
    }
    for name in set(whole) - {"num_predictions", "aux_loss"}:
        value = sum(part[name][0] * part[name][1] for part in parts)
        weight = sum(part[name][1] for part in parts)
        np.testing.assert_allclose(whole[name], (value / weight, weight), rtol=2e-5)
    np.testing.assert_allclose(whole.num_predictions[0], 9.0)


def test_scores_are_log_probabilities_of_the_labels():
    model = pax_fiddle.build(config())
    inputs = batch()
    metrics, example = jax.jit(model.apply)(weights(), inputs)
    np.testing.assert_allclose(jnp.sum(example.scores), -9 * metrics.avg_xent[0], rtol=2e-5)
    np.testing.assert_array_equal(example.labels, inputs.labels)


def test_packed_model_reads_segments_and_counts_tokens():
    model_config = config(count_tokens=True)
    model_config.lm_tpl.packed_input = True
    model = pax_fiddle.build(model_config)
    inputs = batch((5, 5))
    inputs.segment_ids = jnp.asarray([[1, 1, 2, 2, 2], [1, 1, 1, 1, 2]], jnp.int32)
    inputs.segment_pos = jnp.asarray([[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]], jnp.int32)
    variables = noisy_variables(model, inputs)
    count = jax.jit(functools.partial(model.apply, mutable=["non_trainable"]))
    _, updated = count(variables, inputs)
    before = variables["non_trainable"]["token_counter"]["approx_total_tokens_mm"]
    after = updated["non_trainable"]["token_counter"]["approx_total_tokens_mm"]
    np.testing.assert_allclose(after, before + 10e-6, rtol=1e-6)
    del inputs["segment_ids"]
    with pytest.raises(ValueError, match=r"LanguageModel 'model': .* no field 'segment_ids', only"):
        model.apply(variables, inputs)


@pytest.mark.parametrize(
    ("fields", "missing", "message"),
    [
        ({}, "labels", "LanguageModel 'model': the batch has no field 'labels', only"),
        (
            {"model_type": LanguageModelType.PREFIX},
            "inputs_indicator",
            "the batch has no field 'inputs_indicator'",
        ),
        (
            {"apply_eval_sample_weights": True},
            "eval_sample_weights",
            "apply_eval_sample_weights is True, but the batch has no field eval_sample_weights",
        ),
    ],
)
def test_batch_lacks_a_field(fields, missing, message):
    inputs = NestedMap({name: x for name, x in batch().items() if name != missing})
    with pytest.raises(ValueError, match=message):
        pax_fiddle.build(config(**fields)).init(jax.random.PRNGKey(0), inputs)


# ---- greedy decoding ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fprop", "repeated", "rotary"),
    [(True, False, False), (True, True, True), (False, False, True), (False, True, False)],
)
def test_greedy_decoding_equals_running_the_whole_model(fprop, repeated, rotary):
    """Each token is the likeliest one of the whole model after the tokens before it."""
    steps = 4
    decoder = Greedy(
        seqlen=WIDTH + steps, max_decode_steps=steps, fprop_for_prefix=fprop, eos_id=EOS
    )
    layers = 2 if fprop else 1
    model_config = config(layers=layers, repeated=repeated, rotary=rotary, decoder=decoder)
    inputs = batch()
    variables = noisy_variables(pax_fiddle.build(model_config), inputs)
    result = decode(model_config, inputs, variables)
    assert result.output_ids.shape == (3, 1, WIDTH + steps)
    ids = result.output_ids[:, 0]
    log_probs = np.asarray(log_probs_of(model_config, variables, ids))
    for row, length in enumerate((3, 1, 5)):
        np.testing.assert_array_equal(ids[row, :length], inputs.ids[row, :length])
        end = int(result.decode_lengths[row, 0])
        best = log_probs[row, length - 1 : end - 1].argmax(-1)
        np.testing.assert_array_equal(ids[row, length:end], best)
        assert EOS not in best[:-1]
        assert best[-1] == EOS or end == length + steps
        np.testing.assert_array_equal(ids[row, end:], 0)
        first = length if fprop else 1
        got = result.logprobs[row, 0]
        want = log_probs[row, np.arange(first - 1, end - 1), ids[row, first:end]]
        np.testing.assert_allclose(got[first:end], want, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(got[:first], np.ones(first))
    np.testing.assert_array_equal(result.prefix_lengths[:, 0], [3, 1, 5])
    np.testing.assert_array_equal(result.original_lengths[:, 0], [3, 1, 5])
    want = np.where(inputs.paddings == 0, inputs.ids, 0)
    np.testing.assert_array_equal(result.prefix_ids[:, 0, :WIDTH], want)


def test_prefix_model_generates_after_its_prefix():
    decoder = Greedy(seqlen=9, max_decode_steps=3, fprop_for_prefix=True, eos_id=EOS)
    model_config = config(decoder=decoder, model_type=LanguageModelType.PREFIX)
    inputs = batch((4, 5))
    inputs.inputs_indicator = jnp.asarray([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], jnp.int32)
    result = decode(model_config, inputs)
    np.testing.assert_array_equal(result.prefix_lengths[:, 0], [2, 3])
    model = pax_fiddle.build(model_config)

    def both_ways(model, ids, paddings):
        return model.lm(ids, paddings, causal_attention_mask=jnp.zeros(ids.shape)).logits

    logits_of = jax.jit(functools.partial(model.apply, method=both_ways))
    for row, length in enumerate((2, 3)):
        ids = inputs.ids[row : row + 1, :length]
        logits = logits_of(weights(), ids, jnp.zeros(ids.shape))
        assert result.output_ids[row, 0, length] == jnp.argmax(logits[0, -1])


def test_prefix_lengths_of_the_batch_win():
    decoder = Greedy(seqlen=9, max_decode_steps=2, fprop_for_prefix=True, eos_id=EOS)
    result = decode(config(decoder=decoder), batch() | {"prefix_lengths": jnp.array([2, 1, 4])})
    np.testing.assert_array_equal(result.output_ids[2, 0, :4], batch().ids[2, :4])
    assert result.decode_lengths[2, 0] <= 6


# ---- samples ------------------------------------------------------------------------------------


FLAT = {"k": 0, "num_samples": 16, "temperature": 3.0}


def sampler(**fields):
    fields = {"seqlen": 9, "max_decode_steps": 4, "fprop_for_prefix": True, "eos_id": EOS} | fields
    return config(decoder=Sample(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 1, "max_decode_steps": [1, 3, 4]},
        {"temperature": 0.0, "early_exit": False},
        {"k": 0, "p": 1e-6},
    ],
    ids=["one_candidate_steps_in_buckets", "no_temperature_no_early_exit", "nucleus"],
)
def test_sampling_without_a_choice_is_greedy(fields):
    result = decode(sampler(**fields), batch())
    np.testing.assert_array_equal(result.output_ids, greedy().output_ids)
    np.testing.assert_array_equal(result.decode_lengths, greedy().decode_lengths)
    if fields.get("k") == 1:
        np.testing.assert_allclose(result.logprobs, greedy().logprobs, rtol=2e-5, atol=2e-5)


def test_samples_are_sorted_and_continue_their_own_prefix():
    result = free_samples()
    assert result.output_ids.shape == (3, 16, 9)
    scores = np.where(result.logprobs >= 1.0, 0.0, result.logprobs).sum(-1)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    for row, length in enumerate((3, 1, 5)):
        want = np.tile(batch().ids[row, :length], (16, 1))
        np.testing.assert_array_equal(result.output_ids[row, :, :length], want)
    assert len({tuple(ids) for ids in np.asarray(result.output_ids[1])}) > 1


def test_settings_of_each_example():
    """Temperature 0, of a row or of a sample, is greedy; a limit of the steps; one candidate."""
    want = greedy().output_ids[:, 0]
    inputs = batch()
    inputs.temperature = jnp.asarray([0.0, 1.0, 1.0])
    inputs.per_example_max_decode_steps = jnp.asarray([4, 1, 4])
    inputs.per_example_top_k = jnp.asarray([5, 5, 1])
    run = compiled(sampler(k=5, num_samples=2, sort_samples=False))
    result = run(inputs, weights())
    for sample in range(2):
        np.testing.assert_array_equal(result.output_ids[0, sample], want[0])
        np.testing.assert_array_equal(result.output_ids[2, sample], want[2])
    np.testing.assert_array_equal(result.decode_lengths[1], [2, 2])
    inputs = batch()
    inputs.temperature = jnp.asarray([[9.0, 9.0], [9.0, 0.0], [9.0, 0.0]])
    inputs.per_example_top_p = jnp.asarray([1e-6, 1.0, 1.0])
    result = run(inputs, weights())
    np.testing.assert_array_equal(result.output_ids[0], [want[0], want[0]])
    np.testing.assert_array_equal(result.output_ids[1:, 1], want[1:])
    assert not np.array_equal(result.output_ids[1:, 0], want[1:])


def test_keys_of_examples_replace_those_of_the_model():
    inputs = batch() | {"gumbel_prng_key": jnp.asarray([1, 2, 1])}
    inputs.ids = inputs.ids.at[2].set(inputs.ids[0])
    inputs.paddings = inputs.paddings.at[2].set(inputs.paddings[0])
    run = compiled(sampler(k=0, num_samples=3, sort_samples=False))
    one, other = (run(inputs, weights(), seed) for seed in (1, 2))
    np.testing.assert_array_equal(one.output_ids, other.output_ids)
    np.testing.assert_array_equal(one.output_ids[0], one.output_ids[2])
    assert len({tuple(ids) for ids in np.asarray(one.output_ids[0])}) > 1
    inputs.gumbel_prng_key = jnp.full([3], token_samplers.DUMMY_PRNG_KEY)
    runs = [run(inputs, weights(), seed) for seed in (1, 2)]
    assert not np.array_equal(runs[0].output_ids, runs[1].output_ids)


@pytest.mark.parametrize("fprop", [False, True])
def test_no_text_ends_before_min_decode_steps(fprop):
    """Upstream only beam search honours it."""
    free = free_samples()
    assert (free.decode_lengths - free.prefix_lengths == 1).any()
    longer = decode(sampler(**FLAT, fprop_for_prefix=fprop, min_decode_steps=2), batch())
    generated = longer.decode_lengths - longer.prefix_lengths
    assert generated.min() == 3  # two tokens and the end of the text


def test_entropy_and_top_k_logprobs():
    """The entropy is that of all tokens; the log-probability that among the k likeliest."""
    inputs = batch((5,)) | {"return_entropy_score": jnp.ones([1])}
    result = decode(sampler(k=1, use_top_k_for_logprobs=True), inputs)
    log_probs = np.asarray(log_probs_of(config(), weights(), inputs.ids), np.float64)[0, -1]
    want = -(np.exp(log_probs) * log_probs).sum()
    np.testing.assert_allclose(result.entropy[0, 0, WIDTH], want, rtol=2e-5)
    np.testing.assert_allclose(result.logprobs[0, 0, WIDTH], 0.0, atol=1e-6)


# ---- cost ---------------------------------------------------------------------------------------


def test_decode_is_one_loop_whose_caches_have_the_length_of_prefix_and_steps():
    steps = 4
    decoder = Greedy(seqlen=9, max_decode_steps=steps, fprop_for_prefix=True, eos_id=EOS)
    model = pax_fiddle.build(config(layers=2, decoder=decoder))
    variables = noisy_variables(model, batch())

    def run(variables, inputs):
        return model.apply(variables, inputs, method=model.decode, mutable=[CACHE])

    jaxpr = jax.make_jaxpr(run)(variables, batch())
    loops = [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "while"]
    assert len(loops) == 1
    cached = [var.aval.shape for var in loops[0].outvars if len(var.aval.shape) == 4]
    assert cached == [(3, WIDTH + steps, 2, 4)] * 4  # two layers, keys and values


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decoder", "error", "message"),
    [
        (Greedy(), ValueError, "LanguageModel 'model': GreedyDecoderHParams.seqlen is 0"),
        (
            Greedy(seqlen=9, fprop_for_prefix=True),
            ValueError,
            "fprop_for_prefix = True needs max_decode_steps",
        ),
        (
            Greedy(seqlen=9, fprop_for_prefix=True, max_decode_steps=[3, 2]),
            ValueError,
            r"max_decode_steps is \[3, 2\], expected at least 1 token, or an increasing list",
        ),
        (
            decoder_hparams.BeamSearchHParams(seqlen=9),
            ValueError,
            "BeamSearchHParams needs fprop_for_prefix = True",
        ),
        (
            decoder_hparams.FlatBeamSearchHParams(seqlen=9),
            NotImplementedError,
            "decoding with FlatBeamSearchHParams needs attention.*Use BeamSearchHParams",
        ),
        (
            decoder_hparams.DecoderHParams(seqlen=9),
            NotImplementedError,
            "there is no way to decode with DecoderHParams. Use Greedy",
        ),
        (
            Sample(seqlen=9, lazy_prefix_broadcast=True),
            ValueError,
            "lazy_prefix_broadcast = True needs the collection 'prefix_decoder_cache'",
        ),
        (
            Sample(seqlen=9, cf_guidance_scale=2.0),
            NotImplementedError,
            "cf_guidance_scale needs rows without the condition: override",
        ),
        (
            Sample(seqlen=9, vanilla_sample_decode=True),
            ValueError,
            "vanilla_sample_decode = True needs fprop_for_prefix = True",
        ),
    ],
)
def test_wrong_decoder(decoder, error, message):
    wrong = pax_fiddle.build(config(decoder=decoder))
    with pytest.raises(error, match=message):
        wrong.apply(weights(), batch(), method=wrong.decode, mutable=[CACHE])


def test_decoder_of_a_wrong_type():
    class Untyped(models.LanguageModel):
        decoder_tpl: Any = None

    lm = config().lm_tpl
    model = pax_fiddle.build(
        pax_fiddle.Config(Untyped, name="model", lm_tpl=lm, decoder_tpl="beam")
    )
    with pytest.raises(ValueError, match="'model': decoder_tpl is a str, expected a DecoderHPa"):
        model.apply({}, batch(), method=model.decode, mutable=[CACHE])


def test_decoding_needs_a_mutable_cache():
    model = pax_fiddle.build(config(decoder=Greedy(seqlen=9)))
    with pytest.raises(ValueError, match=r"needs the collection 'decoder_cache' to be mutable"):
        model.apply(weights(), batch(), method=model.decode)


def test_per_example_setting_of_another_batch_size():
    inputs = batch() | {"per_example_top_k": jnp.ones([2], jnp.int32)}
    with pytest.raises(ValueError, match=r"per_example_top_k has shape \(2,\), expected .* 3 rows"):
        decode(sampler(k=5), inputs)


# ---- text ---------------------------------------------------------------------------------------


class Letters:
    """An input whose tokens are letters."""

    def ids_to_strings(self, ids, lengths):
        return [
            "".join(chr(ord("a") + i) for i in row[:n]) for row, n in zip(ids, lengths, strict=True)
        ]


def decoded(samples):
    ids = np.array([[[1, 2, 3, 4, 0], [1, 2, 9, 0, 0]], [[5, 6, 0, 0, 0], [5, 7, 7, 7, 7]]])
    lengths = np.array([[4, 3], [2, 5]])
    return NestedMap(
        output_ids=ids[:, :samples],
        decode_lengths=lengths[:, :samples],
        original_lengths=np.array([[3, 3], [1, 1]])[:, :samples],
        prefix_lengths=np.array([[2, 2], [1, 1]])[:, :samples],
        prefix_ids=np.array([[[1, 2, 0]] * 2, [[5, 0, 0]] * 2])[:, :samples],
        logprobs=np.zeros([2, 2, 5])[:, :samples],
        ids=np.array([[1, 2, 8], [5, 0, 0]]),
    )


def test_process_decode_out():
    model = pax_fiddle.build(config())
    out = decoded(2) | {"eval_sample_weights": np.array([1.0, 0.0])}
    metrics, pairs, _ = model.process_decode_out(Letters(), out)
    assert metrics.decoded_length == (3.5, 1.0)
    [(prefix, facts)] = pairs
    assert prefix == facts["prefix"] == "bc"
    assert facts["decoded"] == "bcde" and facts["decoded_substr"] == "de"
    assert facts["original"] == "bci"
    assert facts["sampled"] == ["bcde", "bcj"]
    assert (facts["prefix_length"], facts["decode_length"]) == (2, 4)
    np.testing.assert_array_equal(facts["decoded_ids"], [3, 4])


def test_process_decode_out_of_results_without_samples():
    model = pax_fiddle.build(config())
    flat = decoded(1).Transform(lambda x: x[:, 0] if x.shape[1] == 1 else x)
    _, pairs, _ = model.process_decode_out(Letters(), flat)
    assert [facts["decoded"] for _, facts in pairs] == ["bcde", "fg"]
    assert "sampled" not in pairs[0][1]
    flat.output_ids = flat.output_ids[0]
    with pytest.raises(ValueError, match=r"LanguageModel 'model': output_ids have shape \(5,\)"):
        model.process_decode_out(Letters(), flat)


def test_template_has_type():
    lm = pax_fiddle.Config(transformer_models.TransformerLm)
    assert models.template_has_type(lm, transformer_models.TransformerLm)
    assert not models.template_has_type(lm, base_layer.BaseLayer)
    assert models.template_has_type(Greedy(), decoder_hparams.DecoderHParams)

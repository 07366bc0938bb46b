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


def compiled(model_config):
    """A function of a batch, variables and a seed that gives the results of `decode`."""
    model = pax_fiddle.build(model_config)

    @jax.jit
    def run(variables, inputs, key):
        rngs = {"random": key}
        return model.apply(variables, inputs, rngs=rngs, method=model.decode, mutable=[CACHE])

    return lambda inputs, variables, seed=7: run(variables, inputs, jax.random.PRNGKey(seed))[0][1]


def decode(model_config, inputs, variables=None, seed=7):
    """The results of `decode` and the variables."""
    if variables is None:
        trained = batch()
        trained.inputs_indicator = 1 - trained.paddings
        variables = noisy_variables(pax_fiddle.build(model_config), trained)
    return compiled(model_config)(inputs, variables, seed), variables


def log_probs_of(model_config, variables, ids):
    """[B, T, V], from the whole model."""
    model = pax_fiddle.build(model_config)
    apply = jax.jit(functools.partial(model.apply, method=lambda m, x, p: m.lm(x, p).log_probs))
    return apply(variables, ids, jnp.zeros(ids.shape))


def greedy_without_cache(model_config, variables, ids, length, steps):
    """Runs the whole model on one row again for each token."""
    model = pax_fiddle.build(model_config)
    row = [int(token) for token in ids[:length]]
    width = WIDTH + steps
    apply = jax.jit(functools.partial(model.apply, method=lambda model, x, p: model.lm(x, p)))
    for _ in range(steps):
        padded = jnp.asarray([row + [0] * (width - len(row))], jnp.int32)
        paddings = (jnp.arange(width) >= len(row)).astype(jnp.float32)[jnp.newaxis]
        logits = apply(variables, padded, paddings).logits
        row.append(int(jnp.argmax(logits[0, len(row) - 1])))
        if row[-1] == EOS:
            break
    return row


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
    variables = noisy_variables(model, inputs)
    metrics, example = jax.jit(model.apply)(variables, inputs)
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
def test_greedy_decoding_equals_running_the_model_again_for_each_token(fprop, repeated, rotary):
    steps = 4
    decoder = Greedy(
        seqlen=WIDTH + steps, max_decode_steps=steps, fprop_for_prefix=fprop, eos_id=EOS
    )
    model_config = config(layers=2, repeated=repeated, rotary=rotary, decoder=decoder)
    inputs = batch()
    result, variables = decode(model_config, inputs)
    assert result.output_ids.shape == (3, 1, WIDTH + steps)
    for row, length in enumerate((3, 1, 5)):
        want = greedy_without_cache(model_config, variables, inputs.ids[row], length, steps)
        assert result.decode_lengths[row, 0] == len(want)
        want += [0] * (WIDTH + steps - len(want))
        np.testing.assert_array_equal(result.output_ids[row, 0], want)
    np.testing.assert_array_equal(result.prefix_lengths[:, 0], [3, 1, 5])
    np.testing.assert_array_equal(result.original_lengths[:, 0], [3, 1, 5])
    want = np.where(inputs.paddings == 0, inputs.ids, 0)
    np.testing.assert_array_equal(result.prefix_ids[:, 0, :WIDTH], want)


@pytest.mark.parametrize("fprop", [False, True])
def test_logprobs_are_those_of_the_whole_model(fprop):
    decoder = Greedy(seqlen=9, max_decode_steps=4, fprop_for_prefix=fprop, eos_id=EOS)
    model_config = config(decoder=decoder)
    inputs = batch((3,))
    result, variables = decode(model_config, inputs)
    length = int(result.decode_lengths[0, 0])
    ids = result.output_ids[:, 0, :length]
    log_probs = log_probs_of(model_config, variables, ids)
    want = jnp.take_along_axis(log_probs[:, :-1], ids[:, 1:, jnp.newaxis], axis=-1)[0, :, 0]
    first = 3 if fprop else 1
    got = result.logprobs[0, 0]
    np.testing.assert_allclose(got[first:length], want[first - 1 :], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(got[:first], np.ones(first))


def test_prefix_model_generates_after_its_prefix():
    decoder = Greedy(seqlen=9, max_decode_steps=3, fprop_for_prefix=True, eos_id=EOS)
    model_config = config(decoder=decoder, model_type=LanguageModelType.PREFIX)
    inputs = batch((4, 5))
    inputs.inputs_indicator = jnp.asarray([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], jnp.int32)
    result, variables = decode(model_config, inputs)
    np.testing.assert_array_equal(result.prefix_lengths[:, 0], [2, 3])
    model = pax_fiddle.build(model_config)

    def both_ways(model, ids, paddings):
        return model.lm(ids, paddings, causal_attention_mask=jnp.zeros(ids.shape)).logits

    logits_of = jax.jit(functools.partial(model.apply, method=both_ways))
    for row, length in enumerate((2, 3)):
        ids = inputs.ids[row : row + 1, :length]
        logits = logits_of(variables, ids, jnp.zeros(ids.shape))
        assert result.output_ids[row, 0, length] == jnp.argmax(logits[0, -1])


def test_decode_steps_in_buckets_give_the_same():
    def decoder(steps):
        return Greedy(seqlen=9, max_decode_steps=steps, fprop_for_prefix=True, eos_id=EOS)

    one, variables = decode(config(decoder=decoder(4)), batch())
    many, _ = decode(config(decoder=decoder([1, 3, 4])), batch(), variables)
    np.testing.assert_array_equal(one.output_ids, many.output_ids)
    np.testing.assert_array_equal(one.decode_lengths, many.decode_lengths)
    np.testing.assert_allclose(one.logprobs, many.logprobs, rtol=2e-5, atol=2e-5)


def test_prefix_lengths_of_the_batch_win():
    decoder = Greedy(seqlen=9, max_decode_steps=2, fprop_for_prefix=True, eos_id=EOS)
    result, _ = decode(config(decoder=decoder), batch() | {"prefix_lengths": jnp.array([2, 1, 4])})
    np.testing.assert_array_equal(result.output_ids[2, 0, :4], batch().ids[2, :4])
    assert result.decode_lengths[2, 0] <= 6


# ---- samples ------------------------------------------------------------------------------------


def sampler(**fields):
    fields = {"seqlen": 9, "max_decode_steps": 4, "fprop_for_prefix": True, "eos_id": EOS} | fields
    return config(decoder=Sample(**fields), layers=1)


def test_sampling_from_one_candidate_is_greedy():
    greedy, variables = decode(
        config(
            decoder=Greedy(seqlen=9, max_decode_steps=4, fprop_for_prefix=True, eos_id=EOS),
            layers=1,
        ),
        batch(),
    )
    for fields in ({"k": 1}, {"temperature": 0.0}, {"k": 0, "p": 1e-6}):
        result, _ = decode(sampler(**fields), batch(), variables)
        np.testing.assert_array_equal(result.output_ids, greedy.output_ids)


def test_samples_are_sorted_and_continue_their_own_prefix():
    result, _ = decode(sampler(num_samples=5, k=0), batch())
    assert result.output_ids.shape == (3, 5, 9)
    scores = np.where(result.logprobs >= 1.0, 0.0, result.logprobs).sum(-1)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    for row, length in enumerate((3, 1, 5)):
        want = np.tile(batch().ids[row, :length], (5, 1))
        np.testing.assert_array_equal(result.output_ids[row, :, :length], want)
    assert len({tuple(ids) for ids in np.asarray(result.output_ids[1])}) > 1


def test_settings_of_each_example():
    """Temperature 0 is greedy; a limit of the steps; one candidate."""
    greedy, variables = decode(sampler(k=1), batch())
    inputs = batch()
    inputs.temperature = jnp.asarray([0.0, 1.0, 1.0])
    inputs.per_example_max_decode_steps = jnp.asarray([4, 1, 4])
    inputs.per_example_top_k = jnp.asarray([5, 5, 1])
    run = compiled(sampler(k=5, num_samples=2))
    result = run(inputs, variables)
    for sample in range(2):
        np.testing.assert_array_equal(result.output_ids[0, sample], greedy.output_ids[0, 0])
        np.testing.assert_array_equal(result.output_ids[2, sample], greedy.output_ids[2, 0])
    np.testing.assert_array_equal(result.decode_lengths[1], [2, 2])
    inputs = batch() | {"temperature": jnp.asarray([[0.0, 0.0]] * 3)}
    result = run(inputs, variables)
    np.testing.assert_array_equal(result.output_ids[:, 1], greedy.output_ids[:, 0])
    inputs = batch() | {"per_example_top_p": jnp.full([3], 1e-6)}
    result, _ = decode(sampler(k=0), inputs, variables)
    np.testing.assert_array_equal(result.output_ids, greedy.output_ids)


def test_keys_of_examples_replace_those_of_the_model():
    inputs = batch() | {"gumbel_prng_key": jnp.asarray([1, 2, 1])}
    inputs.ids = inputs.ids.at[2].set(inputs.ids[0])
    inputs.paddings = inputs.paddings.at[2].set(inputs.paddings[0])
    run = compiled(sampler(k=0, num_samples=3, sort_samples=False))
    variables = noisy_variables(pax_fiddle.build(sampler()), batch())
    one, other = (run(inputs, variables, seed) for seed in (1, 2))
    np.testing.assert_array_equal(one.output_ids, other.output_ids)
    np.testing.assert_array_equal(one.output_ids[0], one.output_ids[2])
    assert len({tuple(ids) for ids in np.asarray(one.output_ids[0])}) > 1
    inputs.gumbel_prng_key = jnp.full([3], token_samplers.DUMMY_PRNG_KEY)
    runs = [run(inputs, variables, seed) for seed in (1, 2)]
    assert not np.array_equal(runs[0].output_ids, runs[1].output_ids)


@pytest.mark.parametrize("fprop", [False, True])
def test_no_text_ends_before_min_decode_steps(fprop):
    """Upstream only beam search honours it."""
    fields = {"k": 0, "num_samples": 16, "fprop_for_prefix": fprop, "temperature": 3.0}
    free, variables = decode(sampler(**fields), batch())
    assert (free.decode_lengths - free.prefix_lengths == 1).any()
    longer, _ = decode(sampler(**fields, min_decode_steps=2), batch(), variables)
    generated = longer.decode_lengths - longer.prefix_lengths
    assert generated.min() == 3  # two tokens and the end of the text


def test_entropy_and_top_k_logprobs():
    inputs = batch((5,)) | {"return_entropy_score": jnp.ones([1])}
    result, variables = decode(sampler(k=0), inputs)
    log_probs = np.float64(log_probs_of(sampler(k=0), variables, inputs.ids))[0, -1]
    want = -(np.exp(log_probs) * log_probs).sum()
    np.testing.assert_allclose(result.entropy[0, 0, WIDTH], want, rtol=2e-5)
    top, _ = decode(sampler(k=1, use_top_k_for_logprobs=True), inputs, variables)
    np.testing.assert_allclose(top.logprobs[0, 0, WIDTH], 0.0, atol=1e-6)


def test_fixed_number_of_steps_gives_the_same():
    greedy, variables = decode(sampler(k=1), batch())
    fixed_greedy, _ = decode(sampler(k=1, early_exit=False), batch(), variables)
    np.testing.assert_array_equal(greedy.output_ids, fixed_greedy.output_ids)
    np.testing.assert_array_equal(greedy.decode_lengths, fixed_greedy.decode_lengths)


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
    model = pax_fiddle.build(config())
    variables = noisy_variables(model, batch())
    wrong = pax_fiddle.build(config(decoder=decoder))
    with pytest.raises(error, match=message):
        wrong.apply(variables, batch(), method=wrong.decode, mutable=[CACHE])


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
    variables = noisy_variables(model, batch())
    with pytest.raises(ValueError, match=r"needs the collection 'decoder_cache' to be mutable"):
        model.apply(variables, batch(), method=model.decode)


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

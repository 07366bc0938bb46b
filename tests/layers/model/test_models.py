"""Sequence, BERT, classification and preference models: metrics and generation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import embedding_softmax, linears, models, transformer_models, transformers
from praxis.layers.augmentation.masked_lm import MaskedLmDataAugmenter
from praxis.layers.transformer_models import LanguageModelType

NestedMap = py_utils.NestedMap
Config = pax_fiddle.Config
CACHE = base_layer.DECODE_CACHE
KEY = jax.random.PRNGKey(0)
B, S, T, D, V = 2, 5, 4, 8, 11
EVAL = base_layer.JaxContext.HParams(do_eval=True)


def stack(causal, **fields):
    sizes = {"num_layers": 1, "hidden_dims": 13, "num_heads": 2, "model_dims": D}
    return Config(
        transformers.StackedTransformer, mask_self_attention=causal, **{**sizes, **fields}
    )


def lm(**fields):
    return Config(
        transformer_models.TransformerLm,
        model_dims=D,
        vocab_size=V,
        stacked_transformer_tpl=stack(True),
        **fields,
    )


def encoder_decoder():
    return Config(
        transformer_models.TransformerEncoderDecoder,
        model_dims=D,
        encoder_stacked_transformer_tpl=stack(False),
        decoder_stacked_transformer_tpl=stack(True, use_cross_attention=True),
        softmax_tpl=Config(embedding_softmax.SharedEmbeddingSoftmax, num_classes=V),
    )


def ids(*shape, seed=0, below=V):
    return jnp.asarray(np.random.default_rng(seed).integers(1, below, shape), jnp.int32)


def noisy(model, *arguments, seed=5):
    shapes = jax.eval_shape(lambda: model.init({"params": KEY, "random": KEY}, *arguments))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.float32(0.7 * rng.standard_normal(x.shape)), shapes)


# ---- sequences ----------------------------------------------------------------------------------


def sequences():
    paddings = jnp.float32([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
    return NestedMap(
        src=NestedMap(ids=ids(B, S), paddings=paddings),
        tgt=NestedMap(
            ids=ids(B, T, seed=1),
            labels=ids(B, T, seed=2),
            paddings=jnp.zeros([B, T]),
            weights=jnp.ones([B, T]),
        ),
    )


def sequence_model(**fields):
    config = Config(models.SequenceModel, name="seq", model_tpl=encoder_decoder(), **fields)
    return pax_fiddle.build(config)


def call(model, variables, *arguments, **options):
    """`model.apply` as one compiled program."""
    return jax.jit(functools.partial(model.apply, **options))(variables, *arguments)


def decode(model, variables, batch):
    return call(model, variables, batch, rngs={"random": KEY}, method="decode", mutable=[CACHE])[0]


def greedy_by_hand(model, variables, batch, given, steps):
    """Whole calls on the targets so far; the tokens after `given`."""
    rows = np.asarray(batch.tgt.ids)[:, :given]
    apply = jax.jit(
        lambda targets: (
            model.apply(
                variables,
                targets,
                method=lambda m, t: m.model(
                    batch.src.ids, batch.src.paddings, t, jnp.zeros(t.shape)
                ),
            ).logits
        )
    )
    width = given + steps
    for _ in range(steps):
        padded = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
        logits = apply(jnp.asarray(padded))[:, rows.shape[1] - 1]
        rows = np.concatenate([rows, np.asarray(logits).argmax(-1)[:, None]], axis=1)
    return rows


@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("sampled", [False, True])
def test_sequence_decoding_matches_whole_calls(given, sampled):
    """Greedy, and sampling with k = 1; `max_decode_steps` counts what comes after the given."""
    settings: dict[str, Any] = {"seqlen": 9, "max_decode_steps": 4, "eos_id": V + 1}
    options = (
        decoder_hparams.SampleDecoderHParams(k=1, **settings)
        if sampled
        else decoder_hparams.GreedyDecoderHParams(**settings)
    )
    model, batch = sequence_model(decoder_tpl=options), sequences()
    variables = noisy(model, batch)
    if given > 1:
        batch.prefix_lengths = jnp.full([B], given, jnp.int32)
    metrics, result, _ = decode(model, variables, batch)
    want = greedy_by_hand(model, variables, batch, given, 4)
    got = np.asarray(result.output_ids)[:, 0]
    np.testing.assert_array_equal(got[:, : given + 4], want)
    assert (got[:, given + 4 :] == 0).all()
    assert result.decode_lengths.tolist() == [[given + 4]] * B
    assert float(metrics.num_decoded[0]) == B
    np.testing.assert_array_equal(result.src.ids, batch.src.ids)


def test_samples_of_a_row_share_its_source():
    options = decoder_hparams.SampleDecoderHParams(
        seqlen=5, num_samples=3, k=1, eos_id=V + 1, override_next_token_sampler_params=False
    )
    model, batch = sequence_model(decoder_tpl=options), sequences()
    variables = noisy(model, batch)
    _, result, _ = decode(model, variables, batch)
    want = greedy_by_hand(model, variables, batch, 1, 4)
    assert result.output_ids.shape == (B, 3, 5)
    for sample in range(3):
        np.testing.assert_array_equal(result.output_ids[:, sample], want)


def test_encode_gives_embeddings_of_the_source():
    model, batch = sequence_model(), sequences()
    encoded = call(model, noisy(model, batch), batch, method="encode")
    assert encoded.embeddings.shape == (B, S, D)


def test_label_smoothing_reaches_the_softmax():
    batch = sequences()
    plain, smooth = sequence_model(), sequence_model(label_smoothing_prob=0.3)
    variables = noisy(plain, batch)
    losses = [call(model, variables, batch)[0].total_loss[0] for model in (plain, smooth)]
    assert abs(float(losses[0] - losses[1])) > 1e-3


class Strings:
    """Writes ids as letters."""

    def ids_to_strings(self, ids, lengths, key):
        marks = {"src": "s", "tgt": "t"}
        return [
            marks[key] + "".join(chr(97 + token) for token in row[:length])
            for row, length in zip(ids, lengths, strict=True)
        ]


def test_sequences_as_text():
    out = NestedMap(
        src=NestedMap(ids=np.array([[1, 2], [3, 4]]), paddings=np.array([[0, 1], [0, 0]])),
        tgt=NestedMap(ids=np.array([[5, 6], [7, 8]]), paddings=np.array([[0, 0], [0, 1]])),
        output_ids=np.array([[[1, 2, 3], [3, 2, 1]], [[4, 5, 6], [6, 5, 4]]]),
        decode_lengths=np.array([[3, 2], [1, 1]]),
        logprobs=np.zeros([2, 2, 3]),
        eval_sample_weights=np.array([1.0, 0.0]),
    )
    metrics, pairs, _ = sequence_model().process_decode_out(Strings(), out)
    assert metrics.decode_length == (1.75, 1.0)
    [(key, facts)] = pairs
    assert key == facts["source"] == facts["prefix"] == "sb"
    assert facts["decoded"] == facts["decoded_substr"] == "tbcd"
    assert facts["target"] == "tfg" and facts["sampled"] == ["tbcd", "tdc"]
    assert facts["decode_length"] == 3
    with pytest.raises(ValueError, match=r"SequenceModel 'seq': output_ids have shape \(3,\)"):
        out.output_ids = np.zeros([3])
        sequence_model().process_decode_out(Strings(), out)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seqlen": 0}, ValueError, "seqlen is 0, expected at least 1"),
        (
            {"seqlen": 5, "fprop_for_prefix": True, "max_decode_steps": 2},
            NotImplementedError,
            "fprop_for_prefix is not for this model",
        ),
    ],
)
def test_wrong_decoder(options, error, message):
    greedy = decoder_hparams.GreedyDecoderHParams(**options)
    model, batch = sequence_model(decoder_tpl=greedy), sequences()
    variables = noisy(model, batch)
    with pytest.raises(error, match=message):
        decode(model, variables, batch)


def test_batches_that_lack_a_field():
    batch = sequences()
    del batch.tgt["labels"]
    with pytest.raises(ValueError, match="SequenceModel 'seq': the tgt part has no field 'labels'"):
        sequence_model().init(KEY, batch)


# ---- BERT ---------------------------------------------------------------------------------------


def bert(**fields):
    tokens = lm(packed_input=True, model_type=LanguageModelType.BIDIRECTIONAL)
    tokens.stacked_transformer_tpl.mask_self_attention = False
    return pax_fiddle.build(Config(models.BertModel, name="bert", lm_tpl=tokens, **fields))


def bert_batch():
    return NestedMap(
        ids=ids(B, S),
        labels=ids(B, S),
        paddings=jnp.float32([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]),
        segment_ids=jnp.int32([[1, 1, 2, 2, 2], [1, 1, 1, 0, 0]]),
        segment_pos=jnp.int32([[0, 1, 0, 1, 2], [0, 1, 2, 0, 0]]),
    )


def test_bert_counts_only_hidden_tokens():
    batch = bert_batch()
    batch.masked_ids = batch.ids.at[:, 1].set(0)
    batch.masked_pos = jnp.zeros([B, S]).at[:, 1].set(1.0)
    model = bert()
    metrics, outputs = call(model, noisy(model, batch), batch)
    assert float(metrics.num_predictions[0]) == 2 and float(metrics.total_loss[1]) == 2
    assert float(metrics.num_tokens[0]) == 8 and float(metrics.num_seqs[0]) == 3
    np.testing.assert_allclose(
        metrics.avg_xent[0], np.sum(outputs.per_sequence_xent) / 2, rtol=2e-5
    )
    np.testing.assert_array_equal(outputs.augmented_labels, batch.masked_ids)


def test_bert_hides_tokens_itself_if_the_batch_does_not():
    model, batch = bert(force_mask_generation=True), bert_batch()
    batch.masked_ids, batch.masked_pos = batch.ids, jnp.ones([B, S])
    metrics, _ = call(model, noisy(model, batch), batch, rngs={"random": KEY})
    assert float(metrics.num_predictions[0]) < 8
    hidden = MaskedLmDataAugmenter(vocab_size=V, mask_token_id=0, mask_prob=0.5, name="hide")
    many = jnp.full([50, 50], 7)
    paddings = jnp.zeros([50, 50]).at[:, :10].set(1.0)
    new, chosen = hidden.apply({}, many, paddings, rngs={"random": KEY})
    assert (np.asarray(chosen)[:, :10] == 0).all()
    assert (np.asarray(new)[np.asarray(chosen) == 0] == 7).all()
    assert abs(np.mean(np.asarray(new)[:, 10:] == 0) - 0.5) < 0.05
    assert abs(np.mean(np.asarray(chosen)[:, 10:]) - 0.53) < 0.05


def test_bert_needs_a_bidirectional_model():
    model = pax_fiddle.build(Config(models.BertModel, name="bert", lm_tpl=lm()))
    with pytest.raises(ValueError, match="BertModel 'bert': lm_tpl has model_type = 'causal'"):
        model.init(KEY, bert_batch())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0, expected at least 1"),
        ({"mask_token_id": -1}, "mask_token_id is -1, expected at least 0"),
        ({"mask_prob": 0.98}, "mask_prob, random_prob and same_prob are 0.98, 0.015 and 0.015"),
    ],
)
def test_wrong_masking(fields, message):
    config = Config(MaskedLmDataAugmenter, **{"vocab_size": V, "mask_token_id": 0, **fields})
    with pytest.raises(ValueError, match=message):
        pax_fiddle.build(config).apply({}, ids(B, S), jnp.zeros([B, S]), rngs={"random": KEY})


# ---- classification -----------------------------------------------------------------------------


def classifier(classes):
    return pax_fiddle.build(
        Config(
            models.ClassificationModel,
            name="classify",
            network_tpl=Config(linears.Linear, input_dims=3, output_dims=D),
            softmax_tpl=Config(embedding_softmax.FullSoftmax, input_dims=D, num_classes=classes),
        )
    )


@pytest.mark.parametrize("classes", [2, 6])
def test_classification_metrics(classes):
    rng = np.random.default_rng(0)
    batch = NestedMap(
        image=jnp.float32(rng.standard_normal([7, 3])),
        label_probs=jnp.asarray(np.eye(classes)[rng.integers(0, classes, 7)], jnp.float32),
        weight=jnp.float32([1, 1, 1, 2, 1, 0, 0]),
    )
    model = classifier(classes)
    variables = noisy(model, batch)
    metrics, outputs = call(model, variables, batch)
    names = {"avg_xent", "num_predictions", "accuracy", "error"}
    assert set(metrics) == names | ({"acc5", "error5"} if classes > 5 else set())
    right = np.asarray(outputs.scores).argmax(-1) == np.asarray(batch.label_probs).argmax(-1)
    accuracy = (right * np.asarray(batch.weight)).sum() / 6
    np.testing.assert_allclose(metrics.accuracy[0], accuracy, rtol=2e-5)
    np.testing.assert_allclose(metrics.error[0], 1 - accuracy, rtol=2e-5)
    assert float(metrics.accuracy[1]) == 6
    predicted = call(model, variables, batch, method="predict")
    np.testing.assert_allclose(predicted.logits, outputs.scores, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(np.exp(predicted.logp).sum(-1), np.ones(7), rtol=2e-5)
    losses, nothing, clu_like = model.apply(variables, batch, method="decode")
    assert set(losses) == set(metrics) and not nothing
    twice = clu_like.accuracy.merge(clu_like.accuracy)
    np.testing.assert_allclose(twice.compute(), accuracy, rtol=2e-5)
    assert model.process_decode_out(None, nothing)[1] == []


def test_wrong_classification():
    batch = NestedMap(image=jnp.ones([2, 3]), label_probs=jnp.ones([2, 4]), weight=jnp.ones([3]))
    with pytest.raises(ValueError, match=r"weight of the batch has shape \(3,\), expected \[B\]"):
        classifier(4).init(KEY, batch)
    empty = pax_fiddle.build(Config(models.ClassificationModel, name="classify", network_tpl=None))
    with pytest.raises(ValueError, match="ClassificationModel 'classify': network_tpl is None"):
        empty.init(KEY, batch)
    with pytest.raises(ValueError, match="the batch has no field 'label_probs'"):
        classifier(4).init(KEY, NestedMap(image=batch.image))


# ---- preferences --------------------------------------------------------------------------------


def pairs(same=False):
    batch = {}
    for seed, half in enumerate(("y_w", "y_l")):
        seed = 0 if same else seed
        batch |= {
            f"{half}/inputs": ids(B, T, seed=seed),
            f"{half}/labels/ids": ids(B, T, seed=seed + 5),
            f"{half}/labels/weights": jnp.ones([B, T]),
            f"{half}/paddings": jnp.zeros([B, T]),
            f"{half}/segment_ids": jnp.ones([B, T], jnp.int32),
            f"{half}/segment_pos": jnp.broadcast_to(jnp.arange(T)[None], (B, T)),
        }
    return batch


def dpo(**fields):
    config = Config(models.LanguageModelDPO, name="dpo", ref_mdl=lm(), mdl=lm(), **fields)
    return pax_fiddle.build(config)


def seq2seq_pairs(same=False):
    batch = {"inputs": ids(B, S), "input_paddings": jnp.zeros([B, S])}
    for seed, name in enumerate(("targets_w", "targets_l")):
        seed = 0 if same else seed
        batch |= {
            name: ids(B, T, seed=seed),
            f"{name}/paddings": jnp.zeros([B, T]),
            f"{name}/labels/ids": ids(B, T, seed=seed + 5),
            f"{name}/labels/weights": jnp.ones([B, T]),
        }
    return batch


def sequence_dpo():
    return pax_fiddle.build(
        Config(models.SequenceModelDPO, name="dpo", model_tpl=encoder_decoder(), beta=0.3)
    )


@pytest.mark.parametrize(
    ("make", "batches", "names"),
    [
        (lambda: dpo(beta=0.3), pairs, ("mdl", "ref_mdl")),
        (sequence_dpo, seq2seq_pairs, ("model", "ref_model")),
    ],
    ids=["lm", "sequence"],
)
def test_dpo_loss(make, batches, names):
    """Behaviour: equal halves give log 2; the reference gets no gradient."""
    model = make()
    variables = noisy(model, batches())

    @jax.jit
    @jax.value_and_grad
    def loss(params, batch):
        return model.apply(variables | {"params": params}, batch)[0].total_loss[0]

    same, _ = loss(variables["params"], batches(same=True))
    np.testing.assert_allclose(same, np.log(2), rtol=2e-5)

    predictions = call(model, variables, batches(), method="compute_predictions")
    assert set(predictions) == {"y_w_ref", "y_w_pi", "y_l_ref", "y_l_pi"}
    log_p = {key: -np.float64(value.per_sequence_xent) for key, value in predictions.items()}
    delta = (log_p["y_w_pi"] - log_p["y_w_ref"]) - (log_p["y_l_pi"] - log_p["y_l_ref"])
    want = np.mean(np.log1p(np.exp(-0.3 * delta)))
    value, grads = loss(variables["params"], batches())
    np.testing.assert_allclose(value, want, rtol=2e-4)
    trained, reference = names
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads[reference]))
    assert any((np.asarray(g) != 0).any() for g in jax.tree.leaves(grads[trained]))


def test_sequence_dpo_is_a_sequence_model_for_batches_with_sources():
    model, batch = sequence_dpo(), sequences()
    variables = noisy(model, seq2seq_pairs())
    metrics, _ = call(model, variables, batch)
    plain = sequence_model()
    params = {"params": {"model": variables["params"]["model"]}}
    want, _ = call(plain, params, batch)
    np.testing.assert_allclose(metrics.total_loss[0], want.total_loss[0], rtol=2e-5)


def test_dpo_weighs_examples():
    model = dpo(apply_eval_sample_weights=True)
    batch = pairs() | {"eval_sample_weights": jnp.float32([1, 0])}
    variables = noisy(model, batch)
    metrics, _ = call(model, variables, batch)
    first = {name: value[:1] for name, value in batch.items()}
    want, _ = call(model, variables, first)
    np.testing.assert_allclose(metrics.total_loss[0], want.total_loss[0], rtol=2e-5)
    assert float(metrics.total_loss[1]) == 1
    with pytest.raises(ValueError, match="LanguageModelDPO 'dpo': apply_eval_sample_weights"):
        model.apply(variables, pairs())


def test_dpo_errors():
    batch = pairs()
    del batch["y_l/paddings"]
    with pytest.raises(ValueError, match="the batch has no field 'y_l/paddings'"):
        dpo().init(KEY, batch)
    with pytest.raises(ValueError, match="needs the fields y_w/inputs_indicator"):
        dpo(model_type=LanguageModelType.PREFIX).init(KEY, pairs())
    low = NestedMap(per_sequence_xent=jnp.ones([B], jnp.bfloat16))
    predictions = NestedMap(y_w_ref=low, y_w_pi=low, y_l_ref=low, y_l_pi=low)
    with pytest.raises(ValueError, match="per_sequence_xent has dtype bfloat16, expected float32"):
        dpo().apply({}, predictions, {}, method="compute_loss")

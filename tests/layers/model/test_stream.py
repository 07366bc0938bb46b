"""LanguageModel.stream: the tokens of `decode`, one step at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import decoder_hparams, pax_fiddle, py_utils
from praxis.layers import models, transformer_models, transformers
from praxis.layers.model import generate_stream

NestedMap = py_utils.NestedMap
VOCAB, EOS, STEPS = 11, 0, 7
Greedy = decoder_hparams.GreedyDecoderHParams
Sample = decoder_hparams.SampleDecoderHParams


def config(decoder):
    lm = pax_fiddle.Config(transformer_models.TransformerLm, model_dims=8, vocab_size=VOCAB)
    lm.stacked_transformer_tpl = pax_fiddle.Config(
        transformers.StackedTransformer, num_layers=1, hidden_dims=13, num_heads=2
    )
    return pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm, decoder_tpl=decoder)


def batch(lengths=(3, 1, 5), width=5):
    rng = np.random.default_rng(0)
    paddings = np.arange(width)[np.newaxis] >= np.asarray(lengths)[:, np.newaxis]
    ids = rng.integers(1, VOCAB, paddings.shape)
    return NestedMap(
        ids=jnp.asarray(ids, jnp.int32),
        paddings=jnp.asarray(paddings, jnp.float32),
        labels=jnp.asarray(ids, jnp.int32),
        weights=jnp.asarray(1.0 - paddings, jnp.float32),
    )


def build(decoder):
    model = pax_fiddle.build(config(decoder))
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(1), batch())
    rng = np.random.default_rng(5)
    return model, jax.tree.map(lambda x: jnp.float32(0.7 * rng.standard_normal(x.shape)), shapes)


FIELDS: dict[str, Any] = {
    "seqlen": 9,
    "max_decode_steps": STEPS,
    "fprop_for_prefix": True,
    "eos_id": EOS,
}


def fields(**changes: Any) -> dict[str, Any]:
    return {**FIELDS, **changes}


@pytest.mark.parametrize("decoder", [Greedy(**FIELDS), Sample(**FIELDS, k=0)], ids=["greedy", "k0"])
def test_stream_gives_the_tokens_of_decode_for_the_same_key(decoder):
    model, variables = build(decoder)
    key = jax.random.PRNGKey(3)
    whole = model.apply(
        variables, batch(), method=model.decode, mutable=["decoder_cache"], rngs={"random": key}
    )[0][1]
    steps = list(model.stream(variables, batch(), prng_key=key))
    ids = np.stack([step.ids for step in steps], axis=1)  # [B, steps]
    logprobs = np.stack([step.logprobs for step in steps], axis=1)
    for row, length in enumerate((3, 1, 5)):
        end = int(whole.decode_lengths[row, 0]) - length
        np.testing.assert_array_equal(
            ids[row, :end], whole.output_ids[row, 0, length : length + end]
        )
        assert (ids[row, end:] == 0).all() and (logprobs[row, end:] == 1.0).all()
        np.testing.assert_allclose(
            logprobs[row, :end], whole.logprobs[row, 0, length : length + end], rtol=2e-5, atol=2e-5
        )
    assert steps[-1].done.all() and not any(step.done.all() for step in steps[:-1])


def test_stop_sequences_end_texts():
    model, variables = build(Greedy(**fields(eos_id=99)))
    free = np.stack([step.ids for step in model.stream(variables, batch())], axis=1)
    assert free.shape == (3, STEPS)
    stop = free[0, 2:4].tolist()
    stopped = list(model.stream(variables, batch(), stop_sequences=[stop]))
    ids = np.stack([step.ids for step in stopped], axis=1)
    for row, tokens in enumerate(free):
        ends = [end for end in range(2, STEPS + 1) if tokens[end - 2 : end].tolist() == stop]
        end = min([*ends, ids.shape[1]])
        np.testing.assert_array_equal(ids[row, :end], tokens[:end])
        assert (ids[row, end:] == 0).all()
        assert bool(stopped[end - 1].done[row])
    with pytest.raises(ValueError, match=r"stop_sequences has an empty sequence: \[\[\]\]"):
        list(model.stream(variables, batch(), stop_sequences=[[]]))


def test_requests_of_similar_size_share_compiled_code_and_caches_fit_the_request():
    decoder = Greedy(**fields(eos_id=99, max_decode_steps=40))
    model, variables = build(decoder)
    for lengths in ((3, 1, 5), (2, 2, 1)):
        assert len(list(model.stream(variables, batch(lengths)))) == 40
    streamer = generate_stream._streamer(
        generate_stream._ById(model), repr(decoder), generate_stream._ById(model.decoder_tpl), 64
    )
    assert streamer._step._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]  # of jit
    request = generate_stream._request(batch(), 40)
    carried = jax.eval_shape(streamer._prefill, variables, request, jax.random.PRNGKey(0))
    shapes = {x.shape[1] for x in jax.tree.leaves(carried.caches) if x.ndim == 4}
    assert shapes == {32 + 64}


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (Sample(**FIELDS, num_samples=2), r"num_samples = 2 does not go with stream"),
        (Greedy(seqlen=9), "stream needs GreedyDecoderHParams.max_decode_steps"),
        (decoder_hparams.BeamSearchHParams(**FIELDS), "stream takes Greedy.*got BeamSearch"),
    ],
)
def test_refused_settings(decoder, message):
    model = pax_fiddle.build(config(decoder))
    with pytest.raises(ValueError, match=f"LanguageModel 'model': .*{message}"):
        model.stream({}, batch())

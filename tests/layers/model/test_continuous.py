"""Continuous batching gives each prompt the tokens that decoding it alone gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import models, transformer_models, transformers

VOCAB, WIDTH, STEPS, SLOTS = 11, 4, 5, 2
NestedMap = py_utils.NestedMap
CACHE = base_layer.DECODE_CACHE
DECODER = decoder_hparams.GreedyDecoderHParams(
    seqlen=WIDTH + 6,
    max_decode_steps=STEPS,
    eos_id=-1,
    fprop_for_prefix=True,
    num_cache_slots=SLOTS,
)
PROMPTS = np.array([[3, 5, 7, 2], [4, 1, 0, 0], [6, 9, 8, 0]], np.int32)
LENGTHS = (4, 2, 3)


def config(stack=transformers.StackedTransformer, **fields):
    lm = pax_fiddle.Config(transformer_models.TransformerLm, model_dims=8, vocab_size=VOCAB)
    lm.stacked_transformer_tpl = pax_fiddle.Config(stack, **fields)
    return pax_fiddle.Config(
        models.LanguageModelContinuousBatching, name="model", lm_tpl=lm, decoder_tpl=DECODER
    )


def batch():
    paddings = np.arange(WIDTH)[np.newaxis] >= np.asarray(LENGTHS)[:, np.newaxis]
    return NestedMap(ids=jnp.asarray(PROMPTS), paddings=jnp.asarray(paddings, jnp.float32))


@pytest.fixture(scope="module")
def model():
    return base_layer.instantiate(config(num_layers=2, hidden_dims=13, num_heads=2))


@pytest.fixture(scope="module")
def variables(model):
    inputs = batch()
    inputs.labels, inputs.weights = inputs.ids, 1 - inputs.paddings
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(1), inputs)
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: jnp.float32(0.7 * rng.standard_normal(x.shape)), shapes)


def run(model, variables, cache, method, *args):
    """Calls `method(model, *args)` with caches; returns its result and the new caches."""

    def call(cache, args):
        return model.apply(
            {**variables, **cache},
            *args,
            method=method,
            mutable=[CACHE],
            rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
        )

    return jax.jit(call)(cache, args)


def alone(model, variables):
    """Tokens of each prompt by `decode`, [3, STEPS]."""
    out, _ = run(model, variables, {}, model.decode, batch())
    ids = np.asarray(out[1].output_ids)[:, 0]
    return [ids[row, n : n + STEPS].tolist() for row, n in enumerate(LENGTHS)]


def test_prompts_that_enter_at_different_times(model, variables):
    """One slot is used twice, and the caches, too short for all, are aligned in between."""
    prefix, prefix_cache = run(
        model, variables, {}, lambda layer, batch: layer.sample_prefill(batch, DECODER), batch()
    )
    state, cache = run(
        model,
        variables,
        {},
        lambda layer, batch: layer.sample_init_decode_state(batch, DECODER),
        batch(),
    )
    assert bool(jnp.all(state.done))
    tokens = {row: [int(prefix.output_ids[row])] for row in range(3)}
    owner: dict[int, int] = {}

    def insert(row, slot):
        nonlocal state, cache
        owner[slot] = row

        def call(layer, prefix, prefix_cache, state):
            return layer.sample_insert(DECODER, prefix, prefix_cache, state, row, slot)

        state, cache = run(model, variables, cache, call, prefix, prefix_cache, state)

    def generate(align=False):
        nonlocal state, cache
        live = [not bool(done) for done in state.done]

        def call(layer, state):
            return layer.sample_generate(state, DECODER, align_decode_state=align)

        state, cache = run(model, variables, cache, call, state)
        for slot, row in owner.items():
            if live[slot]:
                tokens[row].append(int(state.output_ids[slot]))

    insert(0, 0)
    generate()
    generate()
    insert(1, 1)
    generate()
    generate()  # slot 0 has its five tokens
    assert [bool(done) for done in state.done] == [True, False]
    insert(2, 0)
    generate(align=True)
    for _ in range(4):
        generate()
    assert bool(jnp.all(state.done))
    assert int(state.max_prefix_len) == WIDTH <= int(state.step)
    assert [tokens[row] for row in range(3)] == alone(model, variables)


def test_wrong_settings_are_named(model, variables):
    for changes, message in (
        ({"num_cache_slots": 0}, r"LanguageModelContinuousBatching 'model': num_cache_slots is 0"),
        ({"seqlen": WIDTH}, r"seqlen is 4, expected more than the 4 tokens"),
    ):
        params = DECODER.clone()
        for name, value in changes.items():
            setattr(params, name, value)
        with pytest.raises(ValueError, match=message):
            model.apply(
                variables,
                batch(),
                params,
                method=model.sample_init_decode_state,
                mutable=[CACHE],
            )

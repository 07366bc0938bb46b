"""N-grammers in a language model: decoding gives what a whole call gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import models, ngrammer, transformer_models, transformers

CACHE = base_layer.DECODE_CACHE
B, T, D, V = 2, 6, 8, 11
EVAL = base_layer.JaxContext.HParams(do_eval=True)
Config = pax_fiddle.Config
SIZES = {"num_heads": 2, "dim_per_head": D // 2, "ngram_emb_dim": 2, "ngram_vocab_size": 23}
OF_TOKENS = Config(ngrammer.Ngrammer, unigram_vocab_size=V, **SIZES)
OF_CLUSTERS = Config(
    ngrammer.VQNgrammer,
    num_clusters=3,
    unigram_vocab_size=V,
    concat_ngrams=True,
    full_update_cache_frequency=2,
    **SIZES,
)


def lm(**fields):
    stack = Config(
        transformers.StackedTransformer, num_layers=2, hidden_dims=13, num_heads=2, model_dims=D
    )
    return Config(
        transformer_models.TransformerLm,
        name="lm",
        model_dims=D,
        vocab_size=V,
        stacked_transformer_tpl=stack,
        **fields,
    )


def ids(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(1, V, shape), jnp.int32)


def noisy(init, *arguments):
    shapes = jax.eval_shape(init, jax.random.PRNGKey(1), *arguments)
    rng = np.random.default_rng(5)

    def random(x):
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.asarray(rng.standard_normal(x.shape) if is_float else np.zeros(x.shape), x.dtype)

    return jax.tree.map(random, shapes)


@pytest.mark.parametrize("template", [OF_TOKENS, OF_CLUSTERS], ids=["tokens", "clusters"])
@pytest.mark.parametrize("known", [0, 3])
def test_steps_give_what_a_call_gives(template, known):
    """From the start, and after a prompt; one token a step, and then two."""
    model = pax_fiddle.build(lm(ngrammer_tpl=template))
    tokens, paddings = ids(B, T), jnp.zeros([B, T])
    with base_layer.JaxContext.new_context(hparams=EVAL):
        variables = noisy(model.init, tokens, paddings)
        whole = model.apply(variables, tokens, paddings).logits
        _, state = model.apply(variables, tokens, paddings, start_time_step=known, mutable=[CACHE])
        assert state[CACHE]["ngrammer_prefix"].shape == (B, 1)
        step = jax.jit(
            lambda state, token: model.apply(
                variables | state, token, method="extend_step", mutable=[CACHE]
            )
        )
        for t in range(known, T):
            outputs, state = step(state, tokens[:, t])
            np.testing.assert_allclose(outputs.logits, whole[:, t], rtol=3e-5, atol=3e-5)


def test_full_updates_get_the_table_of_the_model():
    model = pax_fiddle.build(lm(ngrammer_tpl=OF_CLUSTERS))
    tokens, paddings = ids(B, T), jnp.zeros([B, T])
    variables = noisy(model.init, tokens, paddings)
    _, updates = model.apply(variables, tokens, paddings, mutable=[base_layer.NON_TRAINABLE])
    cache = updates["non_trainable"]["ngrammer"]["input_id_to_cluster_id_cache"]
    table = model.apply(
        variables, jnp.arange(V), method=lambda model, rows: model.softmax.emb_lookup(rows)
    )
    means = np.float64(variables["non_trainable"]["ngrammer"]["vq_layer"]["means"])
    distances = ((np.asarray(table).reshape(V, 2, 1, -1) - means) ** 2).sum(-1)
    np.testing.assert_array_equal(cache, distances.argmin(-1))


@pytest.mark.parametrize("in_one_call", [False, True])
def test_generation_matches_whole_calls(in_one_call):
    """Prompts of different lengths; their first token has none before it, wherever it is."""
    options = decoder_hparams.GreedyDecoderHParams(
        seqlen=8, max_decode_steps=3, eos_id=V + 1, fprop_for_prefix=in_one_call
    )
    model = pax_fiddle.build(
        Config(
            models.LanguageModel, name="m", lm_tpl=lm(ngrammer_tpl=OF_TOKENS), decoder_tpl=options
        )
    )
    lengths = [4, 2]
    paddings = jnp.float32(np.arange(5)[np.newaxis] >= np.array(lengths)[:, np.newaxis])
    batch = py_utils.NestedMap(ids=ids(B, 5), labels=ids(B, 5), paddings=paddings)
    batch.weights = 1 - paddings
    variables = noisy(model.init, batch)
    with base_layer.JaxContext.new_context(hparams=EVAL):
        (_, result, _), _ = model.apply(
            variables, batch, method="decode", mutable=[CACHE], rngs={"random": jax.random.key(0)}
        )
        whole = jax.jit(
            lambda row, p: model.apply(variables, row, p, method=lambda m, *x: m.lm(*x)).logits
        )
        for row, length in enumerate(lengths):
            tokens = [int(token) for token in batch.ids[row, :length]]
            for _ in range(3):
                padded = jnp.asarray([tokens + [0] * (8 - len(tokens))], jnp.int32)
                is_padding = jnp.float32(jnp.arange(8) >= len(tokens))[jnp.newaxis]
                tokens.append(int(jnp.argmax(whole(padded, is_padding)[0, len(tokens) - 1])))
            got = result.output_ids[row, 0, : length + 3].tolist()
            assert got == tokens

"""TransformerEncoderDecoder: steps against whole calls, and what padding and segments hide."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle, py_utils
from praxis.decoding.state import batch_broadcast_state_fn
from praxis.layers import embedding_softmax, ngrammer, transformer_models, transformers

NestedMap = py_utils.NestedMap
CACHE = base_layer.DECODE_CACHE
KEY = jax.random.PRNGKey(0)
B, S, T, D, V = 2, 5, 4, 8, 11
Stack = transformers.StackedTransformer


def stack(causal, **fields):
    sizes = {"num_layers": 1, "hidden_dims": 13, "num_heads": 2, "model_dims": D}
    return pax_fiddle.Config(Stack, mask_self_attention=causal, **{**sizes, **fields})


def config(**fields):
    return pax_fiddle.Config(
        transformer_models.TransformerEncoderDecoder,
        name="encdec",
        **{
            "model_dims": D,
            "encoder_stacked_transformer_tpl": stack(False),
            "decoder_stacked_transformer_tpl": stack(True, use_cross_attention=True),
            "softmax_tpl": pax_fiddle.Config(
                embedding_softmax.SharedEmbeddingSoftmax, num_classes=V
            ),
            **fields,
        },
    )


def table(**fields):
    return pax_fiddle.Config(embedding_softmax.Embedding, num_classes=V, **fields)


def ids(length, seed):
    return jnp.asarray(np.random.default_rng(seed).integers(1, V, [B, length]), jnp.int32)


INPUTS, TARGETS = ids(S, 0), ids(T, 1)
INPUT_PADDINGS = jnp.float32([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
NO_PADDINGS = jnp.zeros([B, T])
ARGUMENTS = (INPUTS, INPUT_PADDINGS, TARGETS, NO_PADDINGS)


def built(model_config):
    model = pax_fiddle.build(model_config)
    shapes = jax.eval_shape(model.init, KEY, *ARGUMENTS)
    rng = np.random.default_rng(5)

    def random(x):
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return (
            jnp.float32(0.5 * rng.standard_normal(x.shape))
            if is_float
            else jnp.zeros(x.shape, x.dtype)
        )

    return model, jax.tree.map(random, shapes)


@functools.cache
def plain():
    """A model with the default tables, and its variables."""
    return built(config())


@functools.cache
def called():
    """The outputs and the cache of a call of `plain()`."""
    model, variables = plain()
    return jax.jit(functools.partial(model.apply, mutable=[CACHE]))(variables, *ARGUMENTS)


SEPARATE = {
    "softmax_tpl": pax_fiddle.Config(embedding_softmax.FullSoftmax, num_classes=V),
    "encoder_embedding_tpl": table(),
    "decoder_embedding_tpl": table(),
    "position_emb_tpl": None,
    "encoder_position_emb_tpl": pax_fiddle.Config(embedding_softmax.PositionalEmbedding),
    "decoder_position_emb_tpl": pax_fiddle.Config(
        embedding_softmax.TrainablePositionalEmbedding, max_seq_length=T + 2
    ),
}
NGRAMS = pax_fiddle.Config(
    ngrammer.VQNgrammer,
    ngram_vocab_size=23,
    ngram_emb_dim=4,
    num_clusters=3,
    num_heads=2,
    dim_per_head=D // 2,
)


@pytest.mark.parametrize(
    ("fields", "samples"),
    [({}, 3), (SEPARATE, 1), ({"decoder_ngrammer_tpl": NGRAMS, "encoder_ngrammer_tpl": NGRAMS}, 3)],
    ids=["shared", "separate", "ngrams"],
)
def test_steps_give_what_a_call_gives(fields, samples):
    """Behaviour of encoder-decoder: extend_step = forward; rows may share an input."""
    model, variables = built(config(**fields))

    @jax.jit
    def call(variables):
        outputs, state = model.apply(variables, *ARGUMENTS, mutable=[CACHE])
        if samples > 1:
            _, state = model.apply(
                variables | state,
                batch_broadcast_state_fn(samples),
                mutable=[CACHE],
                method="transform_decode_state",
            )
        return outputs.logits, state

    whole, state = call(variables)
    step = jax.jit(
        lambda state, tokens: model.apply(
            variables | state, tokens, method="extend_step", mutable=[CACHE]
        )
    )
    for t in range(T):
        tokens = jnp.repeat(TARGETS[:, t], samples)
        outputs, state = step(state, tokens)
        want = jnp.repeat(whole[:, t], samples, axis=0)
        np.testing.assert_allclose(outputs.logits, want, rtol=3e-5, atol=3e-5)
    assert int(state[CACHE]["time_step"]) == T


def test_a_step_reads_the_last_column():
    model, variables = plain()
    _, state = called()

    @jax.jit
    def step(tokens):
        outputs, _ = model.apply(variables | state, tokens, method="extend_step", mutable=[CACHE])
        return outputs.logits

    np.testing.assert_array_equal(step(TARGETS), step(TARGETS[:, -1]))


def test_the_encoder_keeps_no_cache():
    _, state = called()
    assert "encoder" not in state[CACHE]
    assert set(state[CACHE]) == {"time_step", "input_paddings", "decoder"}


def test_padded_inputs_and_later_targets_are_hidden():
    model, variables = plain()
    apply = jax.jit(model.apply)
    logits = apply(variables, *ARGUMENTS).logits
    changed = jnp.where(INPUT_PADDINGS == 1, 3, INPUTS)
    other_targets = TARGETS.at[:, 2:].set(7)
    got = apply(variables, changed, INPUT_PADDINGS, other_targets, NO_PADDINGS).logits
    np.testing.assert_allclose(got[:, :2], logits[:, :2], rtol=2e-5, atol=2e-5)
    seen = apply(variables, INPUTS.at[:, 0].set(9), *ARGUMENTS[1:]).logits
    assert np.abs(seen - logits).max() > 1e-3


def test_packed_examples_do_not_see_each_other():
    _, variables = plain()
    packed = pax_fiddle.build(config(packed_input=True))
    source_ids, source_pos = jnp.int32([[1, 1, 1, 2, 2]] * B), jnp.int32([[0, 1, 2, 0, 1]] * B)
    target_ids, target_pos = jnp.int32([[1, 1, 2, 2]] * B), jnp.int32([[0, 1, 0, 1]] * B)

    @jax.jit
    def logits(inputs, targets, source_ids, source_pos, target_ids, target_pos):
        return packed.apply(
            variables,
            inputs,
            jnp.zeros([B, S]),
            targets,
            NO_PADDINGS,
            input_segment_ids=source_ids,
            input_segment_pos=source_pos,
            target_segment_ids=target_ids,
            target_segment_pos=target_pos,
        ).logits

    arguments = (INPUTS, TARGETS, source_ids, source_pos, target_ids, target_pos)
    whole = logits(*arguments)
    other = logits(INPUTS.at[:, :3].set(7), TARGETS.at[:, :2].set(9), *arguments[2:])
    np.testing.assert_allclose(other[:, 2:], whole[:, 2:], rtol=2e-5, atol=2e-5)
    assert np.abs(other[:, :2] - whole[:, :2]).max() > 1e-3
    # The second example in the place of the first.
    shifts = (-3, -2, -3, -3, -2, -2)
    moved = [jnp.roll(x, by, axis=1) for x, by in zip(arguments, shifts, strict=True)]
    np.testing.assert_allclose(logits(*moved)[:, :2], whole[:, 2:], rtol=3e-5, atol=3e-5)
    # The first example alone: what is behind it is padding.
    model, _ = plain()
    alone = jax.jit(model.apply)(
        variables,
        INPUTS,
        jnp.float32([[0, 0, 0, 1, 1]] * B),
        TARGETS,
        jnp.float32([[0, 0, 1, 1]] * B),
    ).logits
    np.testing.assert_allclose(whole[:, :2], alone[:, :2], rtol=3e-5, atol=3e-5)


def test_loss_is_the_cross_entropy_of_the_labels():
    model, variables = plain()
    labels = NestedMap(class_ids=ids(T, 3), class_weights=jnp.float32([[1, 1, 1, 1], [1, 2, 0, 0]]))
    outputs = jax.jit(model.apply)(variables, *ARGUMENTS, labels=labels)
    logits = np.float64(outputs.logits)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    xent = -np.take_along_axis(log_probs, np.asarray(labels.class_ids)[..., None], -1)[..., 0]
    weighted = xent * labels.class_weights
    np.testing.assert_allclose(outputs.per_sequence_xent, weighted.sum(-1), rtol=2e-5)
    np.testing.assert_allclose(outputs.total_loss, weighted.sum() / 7, rtol=2e-5)
    assert float(outputs.aux_loss) == 0.0


def test_encoder_uses_the_table_of_the_decoder_or_of_the_softmax():
    with_tables = config(decoder_embedding_tpl=table())
    _, variables = built(with_tables)
    assert "decoder_embedding_lookup" in variables["params"]
    assert "encoder_embedding_lookup" not in variables["params"]
    model = pax_fiddle.build(with_tables)
    zeroed = jax.tree.map(lambda x: x, variables)
    zeroed["params"]["decoder_embedding_lookup"]["emb_var"] = jnp.zeros([V, D])
    encoded = [
        jax.jit(functools.partial(model.apply, method="encode"))(zeroed, tokens, INPUT_PADDINGS)
        for tokens in (INPUTS, INPUTS[::-1])
    ]
    np.testing.assert_array_equal(*encoded)


def test_no_normalization_at_the_ends():
    """Wart: None used to fail."""
    _, variables = built(config(encoder_ln_tpl=None, decoder_ln_tpl=None))
    assert set(variables["params"]) == {"encoder", "decoder", "softmax"}


def test_sharding_reaches_both_stacks():
    model = transformer_models.TransformerEncoderDecoder.set_sharding_params_v1(
        config(decoder_ngrammer_tpl=NGRAMS.clone(), encoder_embedding_tpl=table()),
        replica_axis="replica",
        data_axis="data",
        mdl_axis="mdl",
        ici_mesh_shape=[1, 2, 2],
        mesh_axis_names=["replica", "data", "mdl"],
        training_optimized=True,
    )
    metadata = pax_fiddle.build(model).abstract_init_with_metadata(*ARGUMENTS)["params"]

    def split(weight):
        return list(weight.tensor_split_dims_mapping)

    for side in ("encoder", "decoder"):
        attention = metadata[side]["x_layers_0"]["self_attention"]
        assert split(attention["query"]["w"]) == ["data", "mdl", None]
    assert split(metadata["softmax"]["logits_ffn"]["linear"]["w"]) == ["data", "mdl"]
    assert split(metadata["encoder_embedding_lookup"]["emb_var"]) == ["mdl", "data"]
    table_0 = metadata["decoder_ngrammer"]["ngram_layer"]["ngram_table_0"]["emb_var"]
    assert split(table_0) == ["mdl", "data"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_dims": 0}, "TransformerEncoderDecoder 'encdec': model_dims is 0"),
        ({"encoder_stacked_transformer_tpl": None}, "encoder_stacked_transformer_tpl is None"),
        ({"encoder_stacked_transformer_tpl": stack(True)}, "mask_self_attention = True in enc"),
        ({"decoder_stacked_transformer_tpl": stack(False)}, "mask_self_attention = False in dec"),
        (
            {"encoder_position_emb_tpl": pax_fiddle.Config(embedding_softmax.PositionalEmbedding)},
            "both position_emb_tpl and encoder_position_emb_tpl are set",
        ),
        ({"packed_input": True}, "input_segment_ids is None, but packed_input = True"),
        (
            {"decoder_post_attention_ngrammer_tpls": [NGRAMS, None]},
            "decoder_post_attention_ngrammer_tpls has 2 entries.*num_layers = 1",
        ),
    ],
)
def test_wrong_config(fields, message):
    with pytest.raises(ValueError, match=message):
        built(config(**fields))


def test_wrong_segments_and_labels():
    model = pax_fiddle.build(config())
    with pytest.raises(ValueError, match="target_segment_pos is given without target_segment_ids"):
        jax.eval_shape(lambda: model.init(KEY, *ARGUMENTS, target_segment_pos=TARGETS))
    with pytest.raises(ValueError, match=r"labels have \['class_ids'\]"):
        labels = NestedMap(class_ids=TARGETS)
        jax.eval_shape(lambda: model.init(KEY, *ARGUMENTS, labels=labels))
    with pytest.raises(NotImplementedError, match=r"init_states for inputs of shape \(2, 5\)"):
        model.apply({}, INPUTS, INPUT_PADDINGS, method="init_states")

"""TransformerLm: losses, and that decoding with caches gives what a whole call gives."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle, py_utils
from praxis.decoding.prefix import right_align_prefix_ids, right_align_segment_position
from praxis.decoding.state import pad_state_fn
from praxis.layers import (
    embedding_softmax,
    normalizations,
    transformer_models,
    transformers,
)
from praxis.layers.transformer_models import LanguageModelType, TransformerLm

NestedMap = py_utils.NestedMap
CACHE = base_layer.DECODE_CACHE
BATCH, LENGTH, VOCAB, DIMS = 3, 7, 11, 8
KEY = jax.random.PRNGKey(0)
LEARNED = embedding_softmax.TrainablePositionalEmbedding


def stacked(**fields):
    return pax_fiddle.Config(
        transformers.StackedTransformer, num_layers=1, hidden_dims=13, num_heads=2, **fields
    )


def repeated(**fields):
    return pax_fiddle.Config(
        transformers.StackedTransformerRepeated, block=stacked(), x_times=2, **fields
    )


def lm_config(stack=None, **fields):
    config = pax_fiddle.Config(
        TransformerLm, name="lm", model_dims=DIMS, vocab_size=VOCAB, **fields
    )
    config.stacked_transformer_tpl = stacked() if stack is None else stack
    return config


def use_rotary(config):
    stack = config.stacked_transformer_tpl
    block = getattr(stack, "block", stack)
    block.transformer_layer_params_tpl.tr_atten_tpl.use_rotary_position_emb = True
    config.position_emb_tpl = None
    return config


def random_ids(seed=0, shape=(BATCH, LENGTH)):
    return jnp.asarray(np.random.default_rng(seed).integers(1, VOCAB, shape), jnp.int32)


def labels_of(ids):
    return NestedMap(class_ids=ids, class_weights=jnp.ones(ids.shape))


def init(model, ids):
    """Random variables, so that biases and scales differ from their initial values."""
    args = (jax.random.PRNGKey(1), ids, jnp.zeros(ids.shape), labels_of(ids))
    shapes = jax.eval_shape(model.init, *args)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: jnp.float32(0.4 * rng.standard_normal(x.shape)), shapes)


def jitted(model, **options):
    """`model.apply` under jit, which compiles it as one program."""
    return jax.jit(functools.partial(model.apply, **options))


def stepper(model, variables):
    """`extend_step` as one program: a function of a cache, tokens [B] and positions [B]."""

    @jax.jit
    def step(cache, tokens, positions):
        outputs, cache = model.apply(
            variables | cache, tokens, positions, method=model.extend_step, mutable=[CACHE]
        )
        return outputs.logits, cache

    return step


def step_by_step(model, variables, cache, ids, *, segment_pos=None):
    """Logits [B, T, V] of `extend_step`, from a cache of T places, which is emptied."""
    cache = jax.tree.map(jnp.zeros_like, cache)
    step = stepper(model, variables)
    logits = []
    for t in range(ids.shape[1]):
        positions = None if segment_pos is None else segment_pos[:, t]
        outputs, cache = step(cache, ids[:, t], positions)
        logits.append(outputs)
    return jnp.stack(logits, axis=1)


STACKS = {
    "stacked": stacked,
    "unrolled": lambda: repeated(unroll_in_decode=True),
    "scanned": lambda: repeated(unroll_in_decode=False),
}


@functools.cache
def called(stack, positions):
    """A model, its variables, and the logits and the cache of a call."""
    config = lm_config(STACKS[stack]())
    if positions == "rotary":
        use_rotary(config)
    elif positions.startswith("learned"):
        style = "index" if positions.endswith("index") else "matmul"
        config.position_emb_tpl = pax_fiddle.Config(LEARNED, max_seq_length=17, lookup_style=style)
    model = pax_fiddle.build(config)
    ids = random_ids()
    variables = init(model, ids)
    outputs, cache = jitted(model, mutable=[CACHE])(variables, ids, jnp.zeros(ids.shape))
    return model, variables, outputs.logits, cache


@pytest.mark.parametrize(
    ("stack", "positions"),
    [
        ("stacked", "sinusoids"),
        ("stacked", "rotary"),
        ("stacked", "learned"),
        ("stacked", "learned_index"),
        ("unrolled", "rotary"),
        ("scanned", "rotary"),
        ("scanned", "learned"),
    ],
)
def test_extend_step_equals_call(stack, positions):
    """The positions of a learned table were lost in decoding upstream."""
    model, variables, whole, cache = called(stack, positions)
    steps = step_by_step(model, variables, cache, random_ids())
    np.testing.assert_allclose(steps, whole, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rotary", [False, True])
def test_extend_step_equals_call_for_packed_rows(rotary):
    config = lm_config(packed_input=True)
    model = pax_fiddle.build(use_rotary(config) if rotary else config)
    ids = random_ids()
    segment_ids = jnp.asarray([[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 2, 3, 3], [1] * 7], jnp.int32)
    segment_pos = jnp.asarray([[0, 1, 2, 0, 1, 2, 3], [0, 0, 1, 2, 3, 0, 1], range(7)], jnp.int32)
    variables = init(model, ids)
    apply = jitted(model, mutable=[CACHE])

    def whole_and_cache(ids, segment_ids, segment_pos):
        segments = {"segment_ids": segment_ids, "segment_pos": segment_pos}
        outputs, cache = apply(variables, ids, jnp.zeros(ids.shape), **segments)
        return outputs.logits, cache

    whole, cache = whole_and_cache(ids, segment_ids, segment_pos)
    steps = step_by_step(model, variables, cache, ids, segment_pos=segment_pos)
    np.testing.assert_allclose(steps, whole, rtol=2e-5, atol=2e-5)
    # The second segment of the first row at the front of a row of its own.
    alone, _ = whole_and_cache(
        jnp.roll(ids, -3, axis=1), jnp.roll(segment_ids, -3, axis=1), jnp.roll(segment_pos, -3, 1)
    )
    np.testing.assert_allclose(whole[0, 3:], alone[0, :4], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("stack", "positions"),
    [
        ("stacked", "sinusoids"),
        ("stacked", "rotary"),
        ("unrolled", "rotary"),
        ("scanned", "rotary"),
    ],
)
def test_steps_after_prefixes_of_unequal_lengths_equal_a_call_for_each_row(stack, positions):
    model, variables, whole, _ = called(stack, positions)
    ids = random_ids()
    lengths = jnp.asarray([4, 1, 3], jnp.int32)
    width, steps = 4, 3

    def prefill(model, ids):
        prefix, paddings = right_align_prefix_ids(ids[:, :width], lengths, jnp.float32)
        model(
            prefix,
            paddings,
            segment_ids=(paddings == 0).astype(jnp.int32),
            segment_pos=right_align_segment_position(lengths, width),
            start_time_step=width,
        )
        model.transform_decode_state(pad_state_fn(steps))

    _, cache = jitted(model, method=prefill, mutable=[CACHE])(variables, ids)
    step, rows = stepper(model, variables), jnp.arange(BATCH)
    for t in range(steps):
        logits, cache = step(cache, ids[rows, lengths + t], lengths + t)
        np.testing.assert_allclose(logits, whole[rows, lengths + t], rtol=2e-5, atol=2e-5)


def test_prefix_model_sees_all_of_its_prefix_and_nothing_later():
    model = pax_fiddle.build(lm_config(model_type=LanguageModelType.PREFIX))
    ids = random_ids()
    variables = init(model, ids)
    apply = jitted(model)
    mask = jnp.asarray([[0, 0, 0, 1, 1, 1, 1]] * BATCH)

    def logits(ids):
        paddings = jnp.zeros(ids.shape)
        return apply(variables, ids, paddings, causal_attention_mask=mask).logits

    base = logits(ids)
    in_prefix = logits(ids.at[:, 2].set(ids[:, 2] % (VOCAB - 1) + 1))
    assert np.abs(in_prefix[:, 0] - base[:, 0]).min() > 1e-4
    behind = logits(ids.at[:, 4].set(ids[:, 4] % (VOCAB - 1) + 1))
    np.testing.assert_array_equal(behind[:, :4], base[:, :4])


def test_loss_is_the_cross_entropy_of_the_labels():
    model = pax_fiddle.build(lm_config(entropy_loss_weight=0.5))
    ids = random_ids()
    variables = init(model, ids)
    labels = NestedMap(
        class_ids=random_ids(3),
        class_weights=jnp.asarray(np.random.default_rng(4).uniform(size=ids.shape), jnp.float32),
    )
    outputs = jitted(model)(variables, ids, jnp.zeros(ids.shape), labels)
    logits = np.float64(outputs.logits)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    xent = -np.take_along_axis(log_probs, np.asarray(labels.class_ids)[..., None], -1)[..., 0]
    weights = np.float64(labels.class_weights)
    entropy = -(np.exp(log_probs) * log_probs).sum(-1).mean()

    close: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}
    np.testing.assert_allclose(outputs.per_token_xent, xent * weights, **close)
    np.testing.assert_allclose(outputs.per_sequence_xent, (xent * weights).sum(1), **close)
    average = (xent * weights).sum() / weights.sum()
    np.testing.assert_allclose(outputs.avg_xent, average, **close)
    np.testing.assert_allclose(outputs.total_loss, average - 0.5 * entropy, **close)


def test_total_loss_has_the_losses_of_layers():
    softmax = pax_fiddle.Config(embedding_softmax.SharedEmbeddingSoftmax, z_loss_weight=0.1)
    ids = random_ids()
    config = lm_config(softmax_tpl=softmax)
    model = pax_fiddle.build(config)
    variables = init(model, ids)

    def outputs(config):
        model = pax_fiddle.build(config)
        args = (variables, ids, jnp.zeros(ids.shape), labels_of(ids))
        return jitted(model, mutable=[base_layer.AUX_LOSS])(*args)[0]

    with_aux = outputs(config)
    np.testing.assert_allclose(with_aux.aux_loss, with_aux.z_loss, rtol=1e-6)
    np.testing.assert_allclose(with_aux.aux_loss_weight, 1.0)
    np.testing.assert_allclose(with_aux.total_loss, with_aux.avg_xent + with_aux.z_loss, rtol=1e-6)
    without = outputs(config.clone().set(skip_aux_loss=True))
    assert "aux_loss" not in without
    np.testing.assert_array_equal(without.total_loss, without.avg_xent)


def test_padding_changes_nothing_and_activations_are_recorded():
    model = pax_fiddle.build(lm_config(record_activations_in_xent_output=True))
    ids = random_ids()
    variables = init(model, ids)
    paddings = jnp.zeros(ids.shape).at[:, 5:].set(1.0)
    labels = NestedMap(class_ids=ids, class_weights=1 - paddings)
    apply = jitted(model)
    one = apply(variables, ids, paddings, labels)
    other = apply(variables, ids.at[:, 5:].set(1), paddings, labels)
    np.testing.assert_array_equal(one.total_loss, other.total_loss)
    assert one.activations.shape == (BATCH, LENGTH, DIMS)
    bare = pax_fiddle.build(lm_config(skip_compute_loss=True))
    np.testing.assert_array_equal(jitted(bare)(variables, ids, paddings), one.activations)


def test_bfloat16_model_gives_float32_losses():
    model = pax_fiddle.build(lm_config(fprop_dtype=jnp.bfloat16))
    ids = random_ids()
    outputs = jitted(model)(init(model, ids), ids, jnp.zeros(ids.shape), labels_of(ids))
    assert outputs.logits.dtype == jnp.bfloat16
    assert outputs.total_loss.dtype == outputs.per_token_xent.dtype == jnp.float32


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model_dims": 0}, ValueError, "TransformerLm 'lm': model_dims is 0, expected at least 1"),
        ({"vocab_size": 0}, ValueError, "TransformerLm 'lm': vocab_size is 0, expected at least 1"),
        (
            {"post_attention_ngrammer_tpls": [None] * 5},
            ValueError,
            "TransformerLm 'lm': post_attention_ngrammer_tpls has 5 entries, expected one for each",
        ),
    ],
)
def test_wrong_config(fields, error, message):
    model = pax_fiddle.build(lm_config().set(**fields))
    ids = random_ids()
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: model.init(KEY, ids, jnp.zeros(ids.shape)))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            {"segment_pos": jnp.zeros([BATCH, LENGTH], jnp.int32)},
            ValueError,
            "segment_pos is given without segment_ids. Pass both",
        ),
        ({"image": 3}, TypeError, r"TransformerLm 'lm': unexpected inputs \['image'\]"),
        (
            {"labels": NestedMap(class_ids=jnp.zeros([BATCH, LENGTH], jnp.int32))},
            ValueError,
            r"labels have \['class_ids'\], expected class_weights \[B, T\] and class_ids",
        ),
    ],
)
def test_wrong_inputs(inputs, error, message):
    model = pax_fiddle.build(lm_config())
    ids = random_ids()
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: model.init(KEY, ids, jnp.zeros(ids.shape), **inputs))


def test_bidirectional_model_cannot_decode():
    model = pax_fiddle.build(lm_config(model_type=LanguageModelType.BIDIRECTIONAL))
    ids = random_ids()
    variables = init(model, ids)
    with pytest.raises(ValueError, match=r"extend_step adds tokens at the end, .*'bidirectional'"):
        model.apply(variables, ids[:, 0], method=model.extend_step)


# ---- sharding -----------------------------------------------------------------------------------

V1: dict[str, Any] = {
    "replica_axis": "replica",
    "data_axis": "data",
    "mdl_axis": "mdl",
    "ici_mesh_shape": [1, 4, 2],
    "mesh_axis_names": ["replica", "data", "mdl"],
}


@pytest.mark.parametrize("stack", [stacked, repeated])
def test_sharding_v1(stack):
    config = TransformerLm.set_sharding_params_v1(
        lm_config(stack(), position_emb_tpl=pax_fiddle.Config(LEARNED)),
        **V1,
        training_optimized=True,
    )
    batch = ("replica", "data")
    assert config.mesh_axis_names == V1["mesh_axis_names"]
    assert config.ici_mesh_shape == [1, 4, 2]
    assert config.position_emb_tpl.weight_split_dims_mapping.wt == ["data", "mdl"]
    softmax = config.softmax_tpl
    assert softmax.weight_split_dims_mapping.wt == ["data", "mdl"]
    assert softmax.activation_split_dims_mapping.out == [batch, None, "mdl"]
    assert softmax.activation_split_dims_mapping.extend_step_out == [batch, "mdl"]
    block = config.stacked_transformer_tpl
    layer = getattr(block, "block", block).transformer_layer_params_tpl
    attention, feed_forward = layer.tr_atten_tpl, layer.tr_fflayer_tpl
    assert attention.weight_split_dims_mapping.proj == ["data", "mdl", None]
    assert attention.activation_split_dims_mapping.blnh == [batch, None, "mdl", None]
    assert attention.activation_split_dims_mapping.bld == [batch, None, "mdl"]
    assert feed_forward.weight_split_dims_mapping.ffn0 == ["data", "mdl"]
    assert feed_forward.weight_split_dims_mapping.ffn1 == ["mdl", "data"]
    assert feed_forward.activation_split_dims_mapping.ffn0 == [batch, None, "mdl"]
    assert feed_forward.activation_split_dims_mapping.ffn1_extend_step == [batch, "mdl"]


@pytest.mark.parametrize(
    ("softmax", "want"),
    [
        (embedding_softmax.FullSoftmax, ["data", "mdl"]),
        (embedding_softmax.GShardSharedEmbeddingSoftmax, ["mdl", "data"]),
    ],
)
def test_sharding_of_tables_is_in_the_order_they_are_stored(softmax, want):
    """Upstream shards a table of its own the wrong way round."""
    config = lm_config(
        softmax_tpl=pax_fiddle.Config(softmax),
        separate_embedding_tpl=pax_fiddle.Config(embedding_softmax.Embedding),
    )
    TransformerLm.set_sharding_params_v1(config, **V1, training_optimized=False)
    assert config.softmax_tpl.weight_split_dims_mapping.wt == want
    assert config.separate_embedding_tpl.weight_split_dims_mapping.wt == ["mdl", "data"]
    attention = config.stacked_transformer_tpl.transformer_layer_params_tpl.tr_atten_tpl
    batch = ("replica", "data")
    assert attention.activation_split_dims_mapping.bld == [batch, None, None]


def test_sharding_with_a_sequence_axis():
    with_seq: dict[str, Any] = V1 | {"mesh_axis_names": ["replica", "data", "seq", "mdl"]}
    config = TransformerLm.set_sharding_params_v1(
        lm_config(),
        **with_seq,
        seq_axis="seq",
        training_optimized=True,
    )
    layer = config.stacked_transformer_tpl.transformer_layer_params_tpl
    assert layer.tr_fflayer_tpl.weight_split_dims_mapping.ffn0 == [("data", "seq"), "mdl"]
    out = config.softmax_tpl.activation_split_dims_mapping.out
    assert out == [("replica", "data"), "seq", "mdl"]


def test_sharded_model_equals_the_unsharded_one():
    config = lm_config(repeated())
    ids = random_ids(shape=(4, LENGTH))
    model = pax_fiddle.build(config)
    variables = init(model, ids)
    args = (variables, ids, jnp.zeros(ids.shape), labels_of(ids))
    want = jitted(model)(*args).total_loss
    TransformerLm.set_sharding_params_v1(config, **V1, training_optimized=True)
    axes = ("replica", "data", "mdl")
    mesh = jax.make_mesh((1, 4, 2), axes, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        got = jitted(pax_fiddle.build(config))(*args).total_loss
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_unknown_softmax_has_no_sharding():
    config = lm_config(softmax_tpl=pax_fiddle.Config(normalizations.LayerNorm))
    with pytest.raises(NotImplementedError, match="The sharding of LayerNorm is not known"):
        TransformerLm.set_sharding_params_v1(config, **V1, training_optimized=True)


@pytest.mark.parametrize("training_optimized", [False, True])
def test_sharding_of_experts(training_optimized):
    """13.1: experts over the data axis, and groups as the experts."""
    config = lm_config()
    TransformerLm.set_sharding_params_v1(config, **V1, training_optimized=training_optimized)
    experts = config.stacked_transformer_tpl.moe_layer_tpl
    weights, activations = experts.weight_split_dims_mapping, experts.activation_split_dims_mapping
    assert weights.me == [None, None]
    assert weights.emh == ["data", None, "mdl"]
    assert weights.ehm == ["data", "mdl", None]
    assert activations.egch == ["data", None, None, "mdl"]
    group, width = ("data", "mdl") if training_optimized else (("replica", "data"), None)
    assert activations.egcm == activations.gecm == [group, None, None, width]
    assert activations.gsm == [group, None, width]
    assert activations.gsec == activations.gecs == [group, None, None, None]
    assert activations.gs == [group, None]
    assert activations.gec == [group, None, None]


EXPERT_MESH = {
    "replica_axis": "replica",
    "data_axis": "data",
    "data_expert_axis": "data_expert",
    "mdl_axis": "mdl",
    "ici_mesh_shape": [1, 2, 2, 2],
    "mesh_axis_names": ["replica", "data", "data_expert", "mdl"],
}


def test_sharding_with_an_axis_of_experts():
    """13.1: groups over all batch axes, experts over their own."""
    config = lm_config()
    TransformerLm.set_sharding_params_with_expert_parallelism(
        config, **EXPERT_MESH, training_optimized=True
    )
    everywhere = ("replica", "data", "data_expert")
    experts = config.stacked_transformer_tpl.moe_layer_tpl
    activations = experts.activation_split_dims_mapping
    assert experts.weight_split_dims_mapping.emh == ["data_expert", "data", "mdl"]
    assert experts.weight_split_dims_mapping.ehm == ["data_expert", "mdl", "data"]
    assert activations.egch == ["data_expert", "data", None, "mdl"]
    assert activations.egcm == ["data_expert", ("replica", "data"), None, "mdl"]
    assert activations.gecm == [("replica", "data"), "data_expert", None, "mdl"]
    assert activations.gsm == [everywhere, None, "mdl"]
    assert activations.gsec == [everywhere, None, None, None]
    layer = config.stacked_transformer_tpl.transformer_layer_params_tpl
    ffn = layer.tr_fflayer_tpl
    assert ffn.weight_split_dims_mapping.ffn0 == [("data", "data_expert"), "mdl"]
    assert ffn.activation_split_dims_mapping.ffn1 == [everywhere, None, "mdl"]


def test_sharded_experts_equal_unsharded_ones():
    config = lm_config()
    config.stacked_transformer_tpl.set(moe_layers=[0], num_experts=4, num_groups=4)
    ids = random_ids(shape=(4, LENGTH))
    model = pax_fiddle.build(config)
    variables = init(model, ids)
    args = (variables, ids, jnp.zeros(ids.shape), labels_of(ids))
    want = jitted(model)(*args).total_loss
    TransformerLm.set_sharding_params_with_expert_parallelism(
        config, **EXPERT_MESH, training_optimized=True
    )
    axes = tuple(EXPERT_MESH["mesh_axis_names"])
    mesh = jax.make_mesh((1, 2, 2, 2), axes, axis_types=(jax.sharding.AxisType.Auto,) * 4)
    with jax.set_mesh(mesh):
        got = jitted(pax_fiddle.build(config))(*args).total_loss
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_facade_has_the_enum():
    assert transformer_models.LanguageModelType("prefix") is LanguageModelType.PREFIX

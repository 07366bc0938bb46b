"""Pipelined transformers: equal to the plain stack; trained in a model, decoded without them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle, py_utils
from praxis.layers import attentions, transformer_models, transformers

KEY = jax.random.PRNGKey(0)
B, T, S, D, V = 4, 5, 3, 6, 11
X = jnp.float32(np.random.default_rng(0).standard_normal((B, T, D)))
CROSS = jnp.float32(np.random.default_rng(1).standard_normal((B, S, D)))
PADDINGS = jnp.float32(np.arange(T)[np.newaxis] >= np.array([[5], [3], [4], [5]]))
SEGMENTS = jnp.int32([[1, 1, 2, 2, 2], [1, 1, 1, 0, 0], [1, 2, 2, 2, 0], [1, 1, 1, 1, 1]])


def stage(**fields):
    fields = {
        "num_layers": 1,
        "model_dims": D,
        "hidden_dims": 7,
        "num_heads": 2,
        "mask_self_attention": True,
        **fields,
    }
    return pax_fiddle.Config(transformers.StackedTransformer, **fields)


def pipelined(block, stages=2, microbatches=2, **fields):
    return pax_fiddle.Config(
        transformers.PipelinedTransformer,
        name="stack",
        pipeline_stage=block,
        num_pipeline_stages=stages,
        num_pipeline_microbatches=microbatches,
        **fields,
    )


def repeated(block, repeat=1, stages=2):
    return pax_fiddle.Config(
        transformers.PipelineCompatibleStackedTransformerRepeated,
        name="stack",
        block=block,
        x_times=repeat * stages,
        nd_prefix_shape=(repeat, stages) if repeat > 1 else None,
    )


MASKS = {
    "causal": ({}, {}),
    "packed": (
        {"packed_input": True},
        {
            "segment_mask": attentions.segment_mask(SEGMENTS, dtype=jnp.float32),
            "segment_pos": jnp.int32(np.tile(np.arange(T), (B, 1))),
        },
    ),
    "cross": (
        {"use_cross_attention": True},
        {"cross_inputs": CROSS, "cross_paddings": jnp.zeros([B, S])},
    ),
}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("causal", {"circular_repeat": 2}),
        ("packed", {"stream_io": True}),
        ("packed", {"circular_repeat": 2, "pipeline_broadcast_inputs": True}),
        ("cross", {}),
    ],
    ids=["causal_circular", "packed_stream", "packed_travelling", "cross"],
)
def test_equals_the_repeated_stack(kind, fields):
    """28, pipeline: pipelined transformer = stacked transformer for all mask modes."""
    options, inputs = MASKS[kind]
    block = stage(**options)
    layer = pax_fiddle.build(pipelined(block, **fields))
    plain = pax_fiddle.build(repeated(block, fields.get("circular_repeat", 1)))
    variables = jax.jit(lambda key: layer.init(key, X, PADDINGS, **inputs))(KEY)
    shapes = jax.eval_shape(lambda: plain.init(KEY, X, PADDINGS, **inputs))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)

    def outputs_and_grads(stack):
        def loss(params, x):
            y = stack.apply({"params": params}, x, PADDINGS, **inputs)
            return jnp.vdot(y, jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], X)

    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5),
        outputs_and_grads(layer),
        outputs_and_grads(plain),
    )


def test_experts_of_a_microbatch():
    """28, pipeline: G groups a microbatch equal G M groups of a repeated stack."""
    experts = {"num_experts": 3, "moe_layers": [0]}
    layer = pax_fiddle.build(pipelined(stage(num_groups=1, **experts)))
    plain = pax_fiddle.build(repeated(stage(num_groups=2, **experts)))
    zeros = jnp.zeros([B, T])
    variables = jax.jit(lambda key: layer.init(key, X, zeros))(KEY)
    # A group is a piece of the batch, a microbatch each second example of it.
    order = jnp.array([0, 2, 1, 3])

    def run(stack, x):
        return jax.jit(lambda: stack.apply(variables, x, zeros, mutable=["aux_loss"]))()

    y, updated = run(layer, X)
    expected, plain_updated = run(plain, X[order])
    np.testing.assert_allclose(y[order], expected, rtol=2e-5, atol=2e-5)
    losses, plain_losses = (jax.tree.leaves(tree) for tree in (updated, plain_updated))
    assert len(losses) == 2
    assert float(losses[0]) > 0.0
    np.testing.assert_allclose(losses[0], plain_losses[0], rtol=2e-5)


def lm(stack):
    return pax_fiddle.build(
        pax_fiddle.Config(
            transformer_models.TransformerLm,
            name="lm",
            model_dims=D,
            vocab_size=V,
            stacked_transformer_tpl=stack,
        )
    )


IDS = jnp.int32(np.random.default_rng(2).integers(0, V, (B, T)))


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_language_model_trains_as_a_pipeline_and_decodes_without(repeat):
    """9.6: the checkpoint of the pipelined form is one of the repeated form."""
    fields = {"circular_repeat": repeat} if repeat > 1 else {}
    trained = lm(pipelined(stage(model_dims=0), **fields))
    served = lm(repeated(stage(model_dims=0), repeat))
    labels = py_utils.NestedMap(class_ids=IDS, class_weights=1.0 - PADDINGS)
    variables = jax.jit(lambda key: trained.init(key, IDS, PADDINGS, labels))(KEY)

    def loss(model, params):
        return model.apply({"params": params}, IDS, PADDINGS, labels).total_loss

    params = variables["params"]
    value, grads = jax.jit(jax.value_and_grad(lambda p: loss(trained, p)))(params)
    expected, plain_grads = jax.jit(jax.value_and_grad(lambda p: loss(served, p)))(params)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-3, atol=2e-5),
        grads,
        plain_grads,
    )

    zeros = jnp.zeros([B, T])
    logits = jax.jit(lambda: trained.apply(variables, IDS, zeros).logits)()
    _, cache = served.apply(variables, IDS, zeros, mutable=["decoder_cache"])
    cache["decoder_cache"]["time_step"] = jnp.int32(0)
    step = jax.jit(
        lambda cache, ids: served.apply(
            {**variables, **cache}, ids, method=served.extend_step, mutable=["decoder_cache"]
        )
    )
    for t in range(T):
        outputs, cache = step(cache, IDS[:, t])
        np.testing.assert_allclose(outputs.logits, logits[:, t], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"stages": None}, ValueError, "num_pipeline_stages is None, expected at least 1"),
        (
            {"microbatches": None},
            ValueError,
            "num_pipeline_microbatches and pipeline_microbatch_size are both None. Set one",
        ),
        ({"microbatches": 3}, ValueError, "batch 4, expected a multiple of num_microbatches = 3"),
        (
            {"stages": 3, "circular_repeat": 2},
            NotImplementedError,
            "circular_repeat = 2 needs at least num_stages = 3 microbatches, but there are 2",
        ),
    ],
    ids=["stages", "microbatches", "batch", "circular"],
)
def test_errors_name_the_layer_and_the_field(fields, error, message):
    layer = pax_fiddle.build(pipelined(stage(), **fields))
    with pytest.raises(error, match=f"'stack.*{re.escape(message)}"):
        jax.eval_shape(lambda: layer.init(KEY, X, PADDINGS))


@pytest.mark.parametrize("repeat", [1, 2])
def test_decoding_names_the_layer_that_can(repeat):
    layer = pax_fiddle.build(pipelined(stage(), circular_repeat=repeat))
    prefix = r" and nd_prefix_shape = \(2, 2\)" if repeat > 1 else ""
    message = f"PipelinedTransformer 'stack': extend_step: .* x_times = {2 * repeat}{prefix}"
    with pytest.raises(NotImplementedError, match=message):
        layer.extend_step(X[:, 0], time_step=0)
    with pytest.raises(NotImplementedError, match="'stack': init_states: a pipeline does not"):
        layer.init_states(B, T)

"""Grok language models: their configs, losses and decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import activations, grok, multi_query_attention, transformers

V, D, F, N, K, H, L, E = 11, 8, 6, 4, 2, 3, 2, 5
B, T = 2, 6


def config(**fields):
    fields = {"moe": True, "e_dim": E, "capacity_factor": 2.0, **fields}
    return grok.GrokUniTransformerLmHParams(V, D, F, N, K, H, L, name="lm", **fields)


def test_every_layer_has_gated_experts_and_grouped_queries():
    """15: one layer a block, experts in each, with a gate and the given nonlinearity."""
    model = config(atten_logit_cap=5.0)
    repeat = model.stacked_transformer_tpl
    assert (repeat.cls, repeat.x_times) == (transformers.StackedTransformerRepeated, L)
    block = repeat.block
    assert (block.num_layers, list(block.moe_layers), block.dim_per_head) == (1, [0], H)
    experts = block.moe_layer_tpl
    assert experts.use_gated_activation
    assert experts.activation_tpl.cls is activations.GELU
    attention = block.transformer_layer_params_tpl.tr_atten_tpl
    assert attention.cls is multi_query_attention.MultiQueryDotProductAttention
    assert (attention.num_kv_heads, attention.atten_logit_cap) == (K, 5.0)
    # 0 is the default, and was not read.
    assert attention.attention_extra_logit is None


def test_without_experts_the_feed_forward_is_the_stock_one():
    layer = config(moe=False).stacked_transformer_tpl.block.transformer_layer_params_tpl
    assert layer.tr_fflayer_tpl == pax_fiddle.Config(transformers.TransformerFeedForward)


@pytest.mark.parametrize("moe", [False, True])
def test_decoding_equals_the_full_pass(moe):
    """With positions, as a user switches them on."""
    # Room for all tokens: what is dropped depends on the other tokens of a call.
    model = config(moe=moe, capacity_factor=0.0, c_dim=64 if moe else None)
    block = model.stacked_transformer_tpl.block
    block.transformer_layer_params_tpl.tr_atten_tpl.set(
        use_rotary_position_emb=True, dim_per_head=4
    )
    block.dim_per_head = 4
    lm = pax_fiddle.build(model)
    ids = jnp.asarray(np.random.default_rng(0).integers(1, V, (B, T)), jnp.int32)
    paddings = jnp.zeros([B, T])
    segments = jnp.ones([B, T], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(T)[jnp.newaxis], (B, T))
    arguments = {"segment_ids": segments, "segment_pos": positions}
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        variables = jax.jit(lm.init)(jax.random.PRNGKey(0), ids, paddings, **arguments)
        full, cache = jax.jit(functools.partial(lm.apply, mutable=[base_layer.DECODE_CACHE]))(
            variables, ids, paddings, **arguments
        )
        step = jax.jit(
            functools.partial(lm.apply, method="extend_step", mutable=[base_layer.DECODE_CACHE])
        )
        for t in range(T):
            out, cache = step(
                {"params": variables["params"], **cache}, ids[:, t], segment_pos=positions[:, t]
            )
            np.testing.assert_allclose(out.logits, full.logits[:, t], rtol=2e-5, atol=2e-5)


def test_losses_and_gradients_are_finite():
    """15: the auxiliary losses are those of the experts of each layer and the z loss."""
    lm = pax_fiddle.build(config())
    ids = jnp.asarray(np.random.default_rng(0).integers(1, V, (B, T)), jnp.int32)
    labels = py_utils.NestedMap(class_ids=ids, class_weights=jnp.ones([B, T]))
    arguments = {
        "labels": labels,
        "segment_ids": jnp.ones([B, T], jnp.int32),
        "segment_pos": jnp.broadcast_to(jnp.arange(T)[jnp.newaxis], (B, T)),
    }
    params = jax.jit(lm.init)(jax.random.PRNGKey(0), ids, jnp.zeros([B, T]), **arguments)["params"]

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        out, _ = lm.apply(
            {"params": params}, ids, jnp.zeros([B, T]), **arguments, mutable=["aux_loss"]
        )
        return out.total_loss

    value, grads = loss(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))


def test_stages_of_a_pipeline():
    """15: the pipelined form has stream_io and a checkpoint policy."""
    policy = grok.AutodiffCheckpointType.SAVE_DOT_ONLY
    model = config(num_pipeline_stages=2, num_pipeline_microbatches=2, checkpoint_policy=policy)
    pipeline = model.stacked_transformer_tpl
    assert (pipeline.stream_io, pipeline.checkpoint_policy) == (True, policy)
    assert (pipeline.pipeline_stage.num_layers, pipeline.pipeline_stage.moe_layers) == (1, [0])
    with pytest.raises(ValueError, match="num_transformer_layers = 2 is not a multiple of"):
        config(num_pipeline_stages=3)


def test_combined_projections_are_refused():
    with pytest.raises(ValueError, match="combine_qkv = True: queries have more heads"):
        config(combine_qkv=True)

"""GLaM models: their configs, losses and decoding. Their numbers are in the recorded cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle, py_utils
from praxis.layers import activations, glam, transformers

B, T, V = 2, 5, 11
SIZES = {
    "vocab_size": V,
    "model_dim": 6,
    "ff_dim": 7,
    "attention_num_heads": 2,
    "attention_key_value_dim": 3,
    "relative_attention_num_buckets": 4,
    "relative_attention_max_distance": 6,
}
MOE = {"moe": True, "e_dim": 3, "capacity_factor": 2.0}


def config(num_transformer_layers=2, **fields):
    return glam.GlamUniTransformerLmHParams(
        num_transformer_layers=num_transformer_layers, **{**SIZES, **fields}
    )


def random_ids():
    return jnp.asarray(np.random.default_rng(0).integers(0, V, (B, T)), jnp.int32)


def init_shapes(model):
    return jax.eval_shape(model.init, jax.random.PRNGKey(0), random_ids(), jnp.zeros([B, T]))


def random_variables(model):
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.float32(0.4 * rng.standard_normal(x.shape)), init_shapes(model)
    )


def forward(model, variables, ids, **fields):
    labels = py_utils.NestedMap(class_ids=ids, class_weights=jnp.ones(ids.shape))
    call = jax.jit(
        lambda variables: model.apply(
            variables,
            ids,
            jnp.zeros(ids.shape),
            labels=labels,
            rngs={"random": jax.random.PRNGKey(1)},
            mutable=["decoder_cache", "aux_loss"],
            **fields,
        )
    )
    return call(variables)


@pytest.mark.parametrize("repeat", [True, False])
def test_layers(repeat):
    """14: every other layer has experts; the hidden width of experts is that of the ffn."""
    model = pax_fiddle.build(config(4, repeat=repeat, **MOE))
    params = init_shapes(model)["params"]["transformer"]
    lead = (2,) if repeat else ()
    layers = params["repeat"]["sub"] if repeat else params
    assert len(layers) == (2 if repeat else 4)
    for name, layer in layers.items():
        has_experts = int(name[-1]) % 2 == 0
        assert ("wi_0" in layer["ff_layer"]) == has_experts
        if has_experts:
            assert layer["ff_layer"]["wi_0"].shape == (*lead, 3, 6, 7)


def test_without_experts_a_plain_stack_has_none():
    """14, wart: moe_layers were set with moe=False."""
    stack = config(repeat=False).stacked_transformer_tpl
    assert (stack.num_layers, list(stack.moe_layers)) == (2, [])
    shapes = init_shapes(pax_fiddle.build(config(repeat=False)))
    layers = shapes["params"]["transformer"]
    assert all("wi_0" not in layer["ff_layer"] for layer in layers.values())


@pytest.mark.parametrize("gating_func", ["top2", "dense_top2", "expert_choice", "top_k"])
def test_forward_and_loss(gating_func):
    """28, GLaM: aux weight 3 for two layers of experts and the z-loss."""
    model = pax_fiddle.build(config(4, moe_gating_func=gating_func, **MOE))
    ids = random_ids()
    variables = random_variables(model)
    outputs, _ = forward(model, variables, ids)
    np.testing.assert_allclose(outputs.aux_loss_weight, 3.0)
    np.testing.assert_allclose(outputs.total_loss, outputs.avg_xent + outputs.aux_loss, rtol=1e-5)
    assert outputs.logits.shape == (B, T, V)


@pytest.mark.parametrize(
    "fields",
    [{"combine_qkv": True, "atten_logit_cap": 3.0}, {"moe_gating_func": "dense_top2"}],
    ids=["combined_capped", "dense_top2"],
)
def test_decoding_equals_the_forward_pass(fields):
    """28, GLaM: extend_step; capacity 2 S / E has room for all tokens of two rows."""
    model = pax_fiddle.build(config(moe=True, e_dim=2, capacity_factor=2.0, **fields))
    ids = random_ids()
    variables = random_variables(model)
    outputs, cache = forward(model, variables, ids)
    cache = {"decoder_cache": cache["decoder_cache"]}
    cache = jax.tree.map(jnp.zeros_like, cache)

    @jax.jit
    def step(cache, inputs):
        return model.apply(
            {**variables, **cache}, inputs, method="extend_step", mutable=["decoder_cache"]
        )

    for t in range(T):
        result, cache = step(cache, ids[:, t])
        np.testing.assert_allclose(result.logits, outputs.logits[:, t], rtol=2e-5, atol=2e-5)


def test_fields_of_the_stack():
    stack = glam.GlamStackedTransformerHParams(
        model_dim=6,
        ff_dim=7,
        attention_num_heads=2,
        attention_key_value_dim=3,
        ffn_activation_cls=activations.SiLU,
        moe_hidden_dim=5,
        moe_gating_embedding_level="sentence",
        moe_gating_logit_cap=4.0,
        c_dim=3,
        bidirectional=True,
        **{**MOE, "capacity_factor": 0.0},
    )
    assert stack.cls is transformers.StackedTransformer
    layer, experts = stack.transformer_layer_params_tpl, stack.moe_layer_tpl
    assert layer.tr_fflayer_tpl.activation_tpl.cls is activations.SiLU
    assert layer.tr_atten_tpl.attention_extra_logit == 0.0
    assert layer.tr_atten_tpl.relative_bias_tpl.bidirectional
    assert experts.activation_tpl.cls is activations.ReLU
    assert not experts.use_gated_activation
    got = (experts.hidden_dims, experts.expert_capacity_dim, experts.gating_logit_cap)
    assert got == (5, 3, 4.0)
    assert experts.moe_gating_embedding_level == "sentence"


def test_pipelined_stages_are_plain_stacks():
    """14: experts in every other layer of a stage; none without them."""
    for fields, layers in ((MOE, [0]), ({}, [])):
        pipeline = config(4, num_pipeline_stages=2, num_pipeline_microbatches=2, **fields)
        pipeline = pipeline.stacked_transformer_tpl
        assert pipeline.cls is transformers.PipelinedTransformer
        assert pipeline.stream_io
        assert (pipeline.num_pipeline_stages, pipeline.num_pipeline_microbatches) == (2, 2)
        stage = pipeline.pipeline_stage
        assert (stage.num_layers, list(stage.moe_layers)) == (2, layers)


def test_layers_have_to_divide_into_pairs():
    with pytest.raises(ValueError, match=r"num_transformer_layers = 3 is not a multiple of 2"):
        config(3, **MOE)

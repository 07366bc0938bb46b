"""Transformer layers and stacks: masks, cross-attention, decoding, loop against no loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import attentions, normalizations, transformers

B, T, D, S = 2, 5, 6, 7
KEY = jax.random.PRNGKey(0)


def config(cls: Any = transformers.StackedTransformer, **fields):
    sizes = {"num_layers": 2, "model_dims": D, "hidden_dims": 8, "num_heads": 2, "dim_per_head": 4}
    sizes["mask_self_attention"] = True
    if cls is transformers.Transformer:
        sizes = {"input_dims": D, "hidden_dims": 8, "num_heads": 2}
    return pax_fiddle.Config(cls, name="stack", **{**sizes, **fields})


def rotary(**fields):
    """A template of layers with rotated, capped attention."""
    tpl = pax_fiddle.Config(transformers.Transformer, **fields)
    tpl.tr_atten_tpl.set(use_rotary_position_emb=True, atten_logit_cap=3.0)
    return tpl


def repeated(block, x_times=2, **fields):
    return pax_fiddle.Config(
        transformers.StackedTransformerRepeated, name="loop", block=block, x_times=x_times, **fields
    )


def inputs(seed=0, shape=(B, T, D)):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def run(layer, variables, *args, **kwargs):
    """`layer.apply` as one compiled program."""
    mutable = kwargs.pop("mutable", False)
    method = kwargs.pop("method", None)

    def apply(variables, args, kwargs):
        return layer.apply(variables, *args, method=method, mutable=mutable, **kwargs)

    return jax.jit(apply)(variables, args, kwargs)


def random_params(layer, *args, **kwargs):
    """Variables away from their first values."""
    shapes = jax.eval_shape(lambda: layer.init(KEY, *args, **kwargs))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.PRNGKey(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(
        tree, [0.3 * jax.random.normal(k, x.shape, x.dtype) for k, x in pairs]
    )


PADDINGS = jnp.array([[0.0] * 5, [0.0] * 4 + [1.0]])


@pytest.mark.parametrize("policy", ["pre", "post", "primer_hybrid", "post_skip"])
def test_sublayers_are_added_as_the_norm_policy_says(policy):
    """28, transformers: all norm policies, cross-attention with its own norm."""
    layer = pax_fiddle.build(
        config(transformers.Transformer, norm_policy=policy, use_cross_attention=True)
    )
    x, source = inputs(), inputs(1, (B, S, D))
    mask = attentions.causal_mask(x)
    cross_mask = jnp.zeros([1, 1, 1, S])
    call = {"cross_inputs": source, "cross_attention_mask": cross_mask}
    variables = random_params(layer, x, PADDINGS, mask, **call)
    out, probs = run(layer, variables, x, PADDINGS, mask, **call)
    assert set(probs) == {"self_atten", "cross_atten"}
    ln = pax_fiddle.Config(normalizations.LayerNorm, dim=D)
    att = pax_fiddle.Config(attentions.DotProductAttention, input_dim=D, hidden_dim=D, num_heads=2)
    ffn = pax_fiddle.Config(
        transformers.TransformerFeedForward, input_dims=D, hidden_dims=8, norm_policy=policy
    )
    both, before = policy == "primer_hybrid", policy in ("pre", "primer_hybrid")

    @jax.jit
    def by_hand(params, x, source):
        def apply(name, tpl, *args):
            child = pax_fiddle.build(tpl.clone().set(name=name))
            return child.apply({"params": params[name]}, *args)

        def sublayer(x, name, norm, *keys):
            pre = apply(f"pre_{norm}" if both else norm, ln, x) if before else x
            y, _ = apply(name, att, pre, *(keys[:2] if len(keys) == 3 else (pre, pre)), keys[-1])
            if policy in ("post", "primer_hybrid"):
                y = apply(f"post_{norm}" if both else norm, ln, y)
            return apply(norm, ln, x + y) if policy == "post_skip" else x + y

        y = sublayer(x, "self_attention", "layer_norm", mask)
        y = sublayer(y, "cross_attention", "cross_layer_norm", source, source, cross_mask)
        return apply("ff_layer", ffn, y, PADDINGS)

    np.testing.assert_allclose(out, by_hand(variables["params"], x, source), rtol=2e-5, atol=2e-5)


def test_skipping_cross_attention():
    layer = pax_fiddle.build(
        config(transformers.Transformer, use_cross_attention=True, allow_skip_cross_attention=True)
    )
    x, mask = inputs(), attentions.causal_mask(inputs())
    variables = random_params(layer, x, PADDINGS, mask)
    assert "cross_attention" not in variables["params"]
    _, probs = run(layer, variables, x, PADDINGS, mask)
    assert set(probs) == {"self_atten"}


def test_future_and_padded_tokens_have_no_effect():
    layer = pax_fiddle.build(config())
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    apply = jax.jit(layer.apply)
    y = apply(variables, x, PADDINGS)
    future = apply(variables, x.at[:, 3:].add(1.0), PADDINGS)
    np.testing.assert_allclose(y[:, :3], future[:, :3], rtol=1e-6, atol=1e-6)
    padded = apply(variables, x.at[1, 4].add(1.0), PADDINGS)
    np.testing.assert_allclose(y[1, :4], padded[1, :4], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fold", [False, True])
def test_a_packed_row_equals_its_segments(fold):
    """28, transformers: packed masks."""
    layer = pax_fiddle.build(
        config(
            num_layers=1,
            packed_input=True,
            fold_padding_with_segment_mask=fold,
            transformer_layer_params_tpl=rotary(),
        )
    )
    x = inputs(0, (1, T, D))
    ids, positions = jnp.array([[1, 1, 2, 2, 2]]), jnp.array([[0, 1, 0, 1, 2]])
    call = {"segment_mask": attentions.segment_mask(ids), "segment_pos": positions}
    no_pads = jnp.zeros([1, T])
    variables = random_params(layer, x, no_pads, **call)
    packed = run(layer, variables, x, no_pads, **call)
    one = {
        "segment_mask": attentions.segment_mask(jnp.ones([1, 2], jnp.int32)),
        "segment_pos": positions[:, :2],
    }
    alone = run(layer, variables, x[:, :2], no_pads[:, :2], **one)
    np.testing.assert_allclose(packed[:, :2], alone, rtol=2e-5, atol=2e-5)
    # The second segment comes first in a row, and does not see what follows.
    ids, positions = jnp.roll(ids, -2, axis=1), jnp.roll(positions, -2, axis=1)
    call = {"segment_mask": attentions.segment_mask(ids), "segment_pos": positions}
    moved = run(layer, variables, jnp.roll(x, -2, axis=1), no_pads, **call)
    np.testing.assert_allclose(packed[:, 2:], moved[:, :3], rtol=2e-5, atol=2e-5)


def stepper(layer, variables, **fields):
    """extend_step as one program; `fields` are functions of the step, or constants."""

    @jax.jit
    def step(cache, x, t):
        call = {name: value(t) if callable(value) else value for name, value in fields.items()}
        out, cache = layer.apply(
            {**variables, **cache},
            jnp.take(x, t, axis=1),
            time_step=t,
            method="extend_step",
            mutable=["decoder_cache"],
            **call,
        )
        return cache, out

    return step


def decode(step, x, cache, start=0):
    """Runs extend_step over x from `start` on."""
    outs = []
    for t in range(start, x.shape[1]):
        cache, out = step(cache, x, t)
        outs.append(out)
    return jnp.stack(outs, axis=1)


LAYOUTS = {
    "stack": lambda block: block,
    "unrolled": lambda block: repeated(block),
    "rolled": lambda block: repeated(block, unroll_in_decode=False),
    "two_prefixes": lambda block: repeated(block, nd_prefix_shape=(1, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_decoding_equals_the_full_pass(layout):
    """28, transformers, repeats: extend_step = fprop, rolled and unrolled, with nd prefix.

    From nothing, and after a prompt whose cache transform_decode_state makes longer.
    """
    block = config(num_layers=1, transformer_layer_params_tpl=rotary())
    layer = pax_fiddle.build(LAYOUTS[layout](block))
    x, no_pads, prompt = inputs(), jnp.zeros([B, T]), 3
    variables = random_params(layer, x, no_pads)
    full, cache = run(layer, variables, x, no_pads, mutable=["decoder_cache"])
    steps = stepper(layer, variables)
    out = decode(steps, x, jax.tree.map(jnp.zeros_like, cache))
    np.testing.assert_allclose(out, full, rtol=2e-5, atol=2e-5)
    if layout == "unrolled":
        # A cache that is there, but not mutable, does not get in the way of a pass.
        again = run(layer, {**variables, **cache}, x, no_pads)
        np.testing.assert_allclose(again, full, rtol=2e-5, atol=2e-5)

    def prefill(layer, x, paddings):
        layer(x, paddings)
        layer.transform_decode_state(
            lambda state, batch_dim, time_dim: jnp.pad(
                state,
                [(0, T - prompt) if axis == time_dim else (0, 0) for axis in range(state.ndim)],
            )
        )

    _, cache = run(
        layer,
        variables,
        x[:, :prompt],
        no_pads[:, :prompt],
        method=prefill,
        mutable=["decoder_cache"],
    )
    assert layer.apply({**variables, **cache}, method="decoding_sequence_length") == T
    out = decode(steps, x, cache, start=prompt)
    np.testing.assert_allclose(out, full[:, prompt:], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", ["stack", "unrolled", "rolled"])
def test_decoding_packed_rows_with_cross_attention(layout):
    block = config(
        num_layers=1,
        packed_input=True,
        use_cross_attention=True,
        transformer_layer_params_tpl=rotary(),
    )
    layer = pax_fiddle.build(LAYOUTS[layout](block))
    x, source, no_pads = inputs(), inputs(1, (B, S, D)), jnp.zeros([B, T])
    ids = jnp.array([[1, 1, 2, 2, 2], [1, 1, 1, 1, 2]])
    positions = jnp.array([[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]])
    pads = jnp.zeros([B, S]).at[1, 5:].set(1.0)
    call = {
        "segment_mask": attentions.segment_mask(ids),
        "segment_pos": positions,
        "cross_inputs": source,
        "cross_paddings": pads,
    }
    variables = random_params(layer, x, no_pads, **call)
    full, cache = run(layer, variables, x, no_pads, mutable=["decoder_cache"], **call)
    fields = {"segment_pos": lambda t: jnp.take(positions, t, axis=1), "cross_paddings": pads}
    if layout == "stack":
        # The same with the mask given.
        masks = attentions.causal_segment_mask(ids)
        given = stepper(layer, variables, atten_mask=lambda t: jnp.take(masks, t, axis=2), **fields)
        np.testing.assert_allclose(decode(given, x, cache), full, rtol=2e-5, atol=2e-5)
    out = decode(stepper(layer, variables, **fields), x, cache)
    np.testing.assert_allclose(out, full, rtol=2e-5, atol=2e-5)


def test_a_loop_equals_a_stack():
    """28, transformers: stacked = repeated, in outputs and gradients, with and without remat."""
    x = inputs()
    stack = pax_fiddle.build(config())
    variables = random_params(stack, x, PADDINGS)
    layers = [variables["params"][f"x_layers_{i}"] for i in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    in_loop = {"params": {"repeat": {"sub": {"x_layers_0": stacked}}}}

    def loss_and_grads(layer, variables):
        def loss(variables):
            return jnp.sum(jnp.sin(layer.apply(variables, x, PADDINGS)))

        return jax.jit(jax.value_and_grad(loss))(variables)

    loss, grads = loss_and_grads(stack, variables)
    loop = pax_fiddle.build(repeated(config(num_layers=1)))
    loop_loss, loop_grads = loss_and_grads(loop, in_loop)
    remat_loss, remat_grads = loss_and_grads(pax_fiddle.build(config(remat=True)), variables)
    assert loss == pytest.approx(float(loop_loss), rel=2e-5)
    assert loss == pytest.approx(float(remat_loss), rel=2e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)  # noqa: E731
    jax.tree.map(close, grads, remat_grads)
    by_layer = [grads["params"][f"x_layers_{i}"] for i in range(2)]
    stacked_grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *by_layer)
    jax.tree.map(close, stacked_grads, loop_grads["params"]["repeat"]["sub"]["x_layers_0"])


def test_templates_fields_and_dropouts_reach_the_layers():
    first, second = pax_fiddle.Config(transformers.Transformer), rotary()
    stack = pax_fiddle.build(
        config(
            num_layers=4,
            transformer_layer_params_tpl=[first, second],
            dropout_prob=0.2,
            relu_dropout_prob=0.0,
            residual_droppath_prob=0.4,
        )
    )
    x = inputs()
    nodes = stack.abstract_init_with_mdl_config(x, PADDINGS)
    layers = [nodes[f"x_layers_{i}"]["_hparams"] for i in range(4)]
    attention = [nodes[f"x_layers_{i}"]["self_attention"]["_hparams"] for i in range(4)]
    assert [a.use_rotary_position_emb for a in attention] == [False, False, True, True]
    assert [layer.residual_droppath_prob for layer in layers] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {layer.residual_dropout_prob for layer in layers} == {0.2}
    assert {layer.relu_dropout_prob for layer in layers} == {0.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_layers": 0}, "StackedTransformer 'stack': num_layers is 0"),
        ({"dropout_prob": 1.0}, "dropout_prob is 1.0, expected a probability"),
        ({"moe_layers": [2]}, r"moe_layers has \[2\].*num_layers = 2"),
        ({"moe_layers": [1], "moe_layer_tpl": None}, r"moe_layers = \(1,\) needs moe_layer_tpl"),
        ({"moe_layers": [1]}, r"moe_layers = \(1,\) needs experts, but num_experts is 0"),
        ({"ngrammer_tpls": [None]}, "ngrammer_tpls has 1 entries, expected one for each of num_l"),
        (
            {"transformer_layer_params_tpl": [pax_fiddle.Config(transformers.Transformer)] * 3},
            "num_layers = 2 is not a multiple of the 3 configs in transformer_layer_params_tpl",
        ),
        ({"local_window_size": ((1, 1), None, (2, 2))}, "local_window_size has 3 entries"),
        ({"packed_input": True}, "segment_mask is None, but packed_input = True"),
        ({"use_cross_attention": True}, "cross_inputs is None, but use_cross_attention = True"),
    ],
)
def test_what_cannot_work_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        random_params(pax_fiddle.build(config(**fields)), inputs(), PADDINGS)


def test_a_window_needs_an_attention_that_has_one():
    """28, transformers: an error when the attention class has no such field."""
    with pytest.raises((AttributeError, TypeError), match="local_window_size"):
        pax_fiddle.build(config(local_window_size=(2, 2))).init(KEY, inputs(), PADDINGS)


def test_layer_errors_name_the_missing_argument():
    layer = pax_fiddle.build(config(transformers.Transformer, use_cross_attention=True))
    x, mask = inputs(), attentions.causal_mask(inputs())
    with pytest.raises(ValueError, match=r"Transformer 'stack': cross_inputs is None"):
        layer.init(KEY, x, PADDINGS, mask)
    with pytest.raises(ValueError, match="cross_attention_mask is None"):
        layer.init(KEY, x, PADDINGS, mask, cross_inputs=x)
    with pytest.raises(ValueError, match="norm_policy is 'none'"):
        pax_fiddle.build(config(transformers.Transformer, norm_policy="none")).init(
            KEY, x, PADDINGS, mask
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "paddings is None"),
        ({"fold_padding_with_segment_mask": True}, "segment_mask is None"),
        ({"paddings": PADDINGS, "cross_inputs": inputs()}, "cross_paddings is None"),
    ],
)
def test_mask_builders_need_their_arguments(fields, message):
    with pytest.raises(ValueError, match=message):
        transformers.compute_attention_masks_for_fprop(inputs(), **fields)


EXPERTS = {"moe_layers": [1], "num_experts": 3, "num_groups": 2}


def test_layers_with_experts_have_the_fields_of_the_stack():
    """9.5: the four fields of the stack, and the hidden width of the template."""
    moe = pax_fiddle.Config(transformers.TransformerFeedForwardMoe, hidden_dims=11)
    layer = config(
        moe_layer_tpl=moe,
        gating_func="dense_top2",
        min_group_size=4,
        unadjusted_expert_capacity_factor=1.5,
        **EXPERTS,
    )
    variables = random_params(pax_fiddle.build(layer), inputs(), PADDINGS)
    params = variables["params"]
    assert "ffn_layer1" in params["x_layers_0"]["ff_layer"]
    assert params["x_layers_1"]["ff_layer"]["wi_0"].shape == (3, D, 11)
    stack = pax_fiddle.build(layer).bind(variables)
    experts = stack.x_layers[1].ff_layer
    got = (experts.num_experts, experts.num_groups, experts.min_group_size, experts.gating_func)
    assert got == (3, 2, 4, "dense_top2")
    assert experts.unadjusted_expert_capacity_factor == 1.5
    moe.unadjusted_expert_capacity_factor = 1.25
    with pytest.raises(ValueError, match=r"factor is 1.5, but 1.25 in moe_layer_tpl"):
        random_params(pax_fiddle.build(layer), inputs(), PADDINGS)
    layer.unadjusted_expert_capacity_factor = 2.0
    experts = pax_fiddle.build(layer).bind(variables).x_layers[1].ff_layer
    assert experts.unadjusted_expert_capacity_factor == 1.25


def test_a_stack_with_experts_decodes_as_it_computes():
    """28, transformers: extend_step = fprop; repeated stacks equal plain ones."""
    layer = pax_fiddle.build(config(gating_func="dense_top2", **{**EXPERTS, "num_groups": 1}))
    x = inputs()
    variables = random_params(layer, x, jnp.zeros(x.shape[:2]))
    y, cache = run(layer, variables, x, jnp.zeros(x.shape[:2]), mutable=["decoder_cache"])
    steps = decode(stepper(layer, variables), x, jax.tree.map(jnp.zeros_like, cache))
    np.testing.assert_allclose(steps, y, rtol=2e-5, atol=2e-5)


def test_segments_reach_the_feed_forward():
    layer = pax_fiddle.build(
        config(
            transformers.Transformer,
            tr_fflayer_tpl=pax_fiddle.Config(
                transformers.TransformerFeedForwardMoe,
                num_experts=3,
                num_groups=1,
                moe_gating_embedding_level="sentence",
            ),
        )
    )
    x, mask = inputs(), attentions.causal_mask(inputs())
    variables = random_params(layer, x, PADDINGS, mask)
    ids = jnp.ones(x.shape[:2], jnp.int32).at[:, 2:].set(2)
    whole, _ = run(layer, variables, x, PADDINGS, mask)
    apart, _ = run(layer, variables, x, PADDINGS, mask, segment_ids=ids)
    assert not np.allclose(whole, apart, atol=1e-3)


def test_ngrammers_reach_the_attentions():
    """9.5: ngrammer_tpls[i] is that of layer i."""
    ngrammer = pax_fiddle.Config(transformers.TransformerFeedForward)
    stack = pax_fiddle.build(config(ngrammer_tpls=[None, ngrammer]))
    layers = [
        stack._layer_config(i, pax_fiddle.Config(transformers.Transformer), None) for i in range(2)
    ]
    assert [layer.ngrammer_tpl for layer in layers] == [None, ngrammer]

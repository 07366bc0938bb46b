"""The Conformer and its attention, against compositions of their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions, conformers, normalizations
from praxis.layers.attention.mask_spec import AttentionMask

B, T, D, N = 2, 7, 6, 2
PADDINGS = jnp.zeros([B, T]).at[1, 5:].set(1)
SIZES = {"input_dim": D, "hidden_dim": D, "num_heads": N}
XL = {"rel_pos_emb_dim": 4}
KEPT = ("params", "non_trainable")


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


X = normal(B, T, D)


def build(cls, **fields):
    return base_layer.instantiate(pax_fiddle.Config(cls, name="layer", **fields))


def variables_of(layer, *args):
    """Random values in place of the first ones, so that zeros and ones hide nothing."""
    shapes = jax.eval_shape(layer.init, jax.random.key(0), *args)
    leaves, tree = jax.tree.flatten({name: shapes[name] for name in KEPT if name in shapes})
    values = [0.5 + 0.3 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, values)


@pytest.fixture(autouse=True)
def _evaluation():
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        yield


# ---- attention with a limited context -----------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "local", "fields", "left", "right"),
    [
        (conformers.DotProductAttentionWithContext, attentions.LocalSelfAttention, {}, 3, 1),
        (conformers.DotProductAttentionWithContext, attentions.LocalSelfAttention, {}, 1, 2),
        (conformers.DotProductAttentionWithContextXL, attentions.LocalSelfAttentionXL, XL, 3, 1),
    ],
    ids=["plain", "plain_future", "XL"],
)
def test_limited_context_is_local_attention(cls, local, fields, left, right):
    fields = {**fields, **SIZES, "left_context": left, "right_context": right}
    layer, blocks = build(cls, **fields), build(local, **fields)
    mask = attentions.convert_paddings_to_mask(PADDINGS)
    variables = variables_of(layer, X, X, X, mask)
    got, want = (module.apply(variables, X, X, X, mask)[0] for module in (layer, blocks))
    # A padded query may see no key, and then averages over what there is: a block, or all.
    valid = PADDINGS == 0
    np.testing.assert_allclose(got[valid], want[valid], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("left", [None, 2])
@pytest.mark.parametrize("right", [None, 1])
def test_a_limit_that_is_none_limits_nothing(left, right):
    layer = build(
        conformers.DotProductAttentionWithContext, left_context=left, right_context=right, **SIZES
    )
    plain = build(attentions.DotProductAttention, **SIZES)
    mask = attentions.convert_paddings_to_mask(PADDINGS)
    near = attentions.limited_context_mask(left, right, T)[jnp.newaxis, jnp.newaxis]
    variables = variables_of(layer, X, X, X, mask)
    got, _ = layer.apply(variables, X, X, X, mask)
    want, _ = plain.apply(variables, X, X, X, jnp.minimum(*jnp.broadcast_arrays(mask, near)))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (conformers.DotProductAttentionWithContext, {"decode_cache_window_only": True}),
        (conformers.DotProductAttentionWithContextXL, XL),
    ],
    ids=["plain_ring", "XL"],
)
def test_steps_of_decoding_see_the_context(cls, fields):
    layer = build(cls, left_context=3, right_context=0, **SIZES, **fields)
    mask = attentions.causal_mask(X)
    state = variables_of(layer, X, X, X, mask)
    want, _ = layer.apply(state, X, X, X, mask)
    first = 4
    # The states of a prompt of four frames, in a cache of the whole length.
    _, cache = layer.apply(
        state,
        *[X[:, :first]] * 3,
        mask[:, :, :first, :first],
        mutable=["decoder_cache"],
    )

    def extend(x, batch_dim, time_dim):
        del batch_dim
        widths = [(0, 0)] * x.ndim
        widths[time_dim] = (0, T - first)
        return jnp.pad(x, widths)

    _, cache = layer.apply(
        state | cache, extend, mutable=["decoder_cache"], method=layer.transform_decode_state
    )
    for step in range(first, T):
        got, cache = layer.apply(
            state | cache,
            X[:, step],
            atten_mask=jnp.broadcast_to(mask[:, :, step], [B, 1, T]),
            time_step=jnp.int32(step),
            segment_pos=None,
            mutable=["decoder_cache"],
            method=layer.extend_step,
        )
        np.testing.assert_allclose(got, want[:, step], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "cls", ["DotProductAttentionWithContext", "DotProductAttentionWithContextXL"]
)
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"left_context": 0}, "left_context is 0, expected at least 1, or None"),
        ({"right_context": -1}, "right_context is -1, expected at least 0, or None"),
        ({"decode_cache_window_only": True}, "decode_cache_window_only = True needs a window"),
    ],
)
def test_bad_contexts_are_refused(cls, fields, text):
    layer = build(getattr(conformers, cls), **SIZES, **fields)
    with pytest.raises(ValueError, match=f"{cls} 'layer': {text}"):
        layer.init(jax.random.key(0), X, X, X, jnp.zeros([1, 1, T, T]))


# ---- self-attention with norm and residual ------------------------------------------------------


def self_attention(**fields):
    fields = {
        "self_atten_tpl": pax_fiddle.Config(conformers.DotProductAttentionWithContext, **SIZES),
        "norm_tpl": pax_fiddle.Config(normalizations.LayerNorm, dim=D),
        **fields,
    }
    return build(conformers.SelfAttentionWithNormAndResidual, **fields)


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ({}, "pre"),
        ({"pre_layer_norm": False}, "post_skip"),
        ({"pre_layer_norm": None, "norm_policy": "post"}, "post"),
        # The default of pre_layer_norm gives way.
        ({"norm_policy": "primer_hybrid"}, "primer_hybrid"),
        ({"norm_policy": "post_skip", "pre_layer_norm": False}, "post_skip"),
    ],
)
def test_where_the_norms_are(fields, policy):
    layer = self_attention(residual_weight=0.3, input_weight=0.7, **fields)
    assert layer.unified_norm_policy() == policy
    variables = variables_of(layer, X, PADDINGS)
    parts = layer.bind(variables)
    mask = attentions.convert_paddings_to_mask(PADDINGS)

    def attend(x):
        return 0.3 * parts.self_atten(x, x, x, mask)[0]

    if policy == "pre":
        want = 0.7 * X + attend(parts.norm(X))
    elif policy == "post":
        want = 0.7 * X + 0.3 * parts.norm(attend(X) / 0.3)
    elif policy == "post_skip":
        want = parts.norm(0.7 * X + attend(X))
    else:
        want = 0.7 * X + 0.3 * parts.post_norm(attend(parts.pre_norm(X)) / 0.3)
    got = layer.apply(variables, X, PADDINGS)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_masks_hide_keys_besides_the_padded_ones():
    """Additive, boolean and lazy masks; one by key hides no queries."""
    layer = self_attention()
    variables = variables_of(layer, X, PADDINGS)
    causal = attentions.causal_mask(X)
    lazy = AttentionMask(target_len=T, source_len=T, causal=True)
    outputs = [layer.apply(variables, X, PADDINGS, mask) for mask in (causal, causal == 0, lazy)]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=2e-5, atol=2e-5)
    hidden_keys = attentions.convert_paddings_to_mask(PADDINGS)
    np.testing.assert_allclose(
        layer.apply(variables, X, jnp.zeros([B, T]), hidden_keys),
        layer.apply(variables, X, PADDINGS),
        rtol=2e-5,
        atol=2e-5,
    )


def test_padded_queries_of_a_limited_context_see_all_alike():
    """They see no key, and so average over all; the others do not depend on that."""
    limited = pax_fiddle.Config(conformers.DotProductAttentionWithContext, left_context=T, **SIZES)
    layer, plain = self_attention(self_atten_tpl=limited), self_attention()
    variables = variables_of(layer, X, PADDINGS)
    got = layer.apply(variables, X, PADDINGS) - X
    want = plain.apply(variables, X, PADDINGS) - X
    np.testing.assert_allclose(got[1, :5], want[1, :5], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(got[1, 5], got[1, 6], rtol=2e-5, atol=2e-5)
    assert np.any(np.abs(got[1, 5] - want[1, 5]) > 1e-3)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"norm_policy": "before"}, "norm_policy is 'before' and pre_layer_norm is True, expected"),
        ({"pre_layer_norm": None}, "norm_policy is None and pre_layer_norm is None, expected"),
        (
            {"norm_policy": "pre", "pre_layer_norm": False},
            "norm_policy = 'pre' contradicts pre_layer_norm = False",
        ),
        ({"paddings": jnp.zeros([B, T + 1])}, rf"paddings have shape \({B}, {T + 1}\), inputs"),
        (
            {"atten_mask": jnp.zeros([1, 1, T, T + 1])},
            rf"The attention mask has shape \(1, 1, {T}, {T + 1}\), expected \[B, N, T, S\]",
        ),
    ],
)
def test_errors_of_self_attention(fields, text):
    given = {name: fields.pop(name) for name in ("paddings", "atten_mask") if name in fields}
    with pytest.raises(ValueError, match=f"SelfAttentionWithNormAndResidual 'layer': {text}"):
        self_attention(**fields).init(jax.random.key(0), X, **{"paddings": PADDINGS, **given})


# ---- the block ----------------------------------------------------------------------------------

SMALL = {"model_dims": D, "atten_num_heads": N, "kernel_size": 3, "ffn_dim_multiplier": 2}
PARTS = {
    "mhsa": ["trans_atten"],
    "conv": ["lconv"],
    "mhsa_before_conv": ["trans_atten", "lconv"],
    "conv_before_mhsa": ["lconv", "trans_atten"],
}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        *(
            ({"layer_order": order}, ["fflayer_start", *between, "fflayer_end"])
            for order, between in PARTS.items()
        ),
        (
            {"fflayer_weight_sharing": True},
            ["fflayer_start", "trans_atten", "lconv", "fflayer_start"],
        ),
        ({"fflayer_start_tpl": None}, ["trans_atten", "lconv", "fflayer_end"]),
        (
            {"fflayer_end_tpl": None, "trans_atten_tpl": None, "lconv_tpl": None},
            ["fflayer_start"],
        ),
    ],
    ids=[*PARTS, "shared", "no_start", "start_only"],
)
def test_conformer_is_its_parts_in_order(fields, parts):
    layer = build(conformers.Conformer, **SMALL, **fields)
    variables = variables_of(layer, X, PADDINGS)
    assert set(variables["params"]) == {*parts, "final_ln"}
    bound = layer.bind(variables)
    want = X
    for part in parts:
        want = getattr(bound, part)(want, PADDINGS)
    got = layer.apply(variables, X, PADDINGS)
    np.testing.assert_allclose(got, bound.final_ln(want), rtol=2e-5, atol=2e-5)


def children(**fields):
    """The children of a block, which are set up without variables."""
    layer = build(conformers.Conformer, **SMALL, **fields)
    return layer.bind(jax.eval_shape(layer.init, jax.random.key(0), X, PADDINGS))


def probabilities(bound):
    return {
        "atten_dropout": bound.trans_atten.self_atten.atten_dropout_prob,
        "atten_residual_dropout": bound.trans_atten.residual_dropout_prob,
        "conv_residual_dropout": bound.lconv.dropout_prob,
        "ffn_residual_dropout": bound.fflayer_start.residual_dropout_prob,
        "ffn_relu_dropout": bound.fflayer_end.relu_dropout_prob,
    }


def test_dropouts_have_one_probability_or_each_its_own():
    own = dict(zip(probabilities(children()), (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    assert probabilities(children()) == dict.fromkeys(own, 0.0)
    assert probabilities(children(**own)) == own
    shared = children(dropout_prob=0.2, atten_residual_dropout=0.2)
    assert probabilities(shared) == dict.fromkeys(own, 0.2)


def test_inputs_of_another_width_are_brought_to_that_of_the_block():
    layer = build(conformers.Conformer, input_dims=D + 1, **SMALL)
    x = normal(B, T, D + 1)
    variables = variables_of(layer, x, PADDINGS)
    assert variables["params"]["fflayer_start"]["ffn_layer2"]["linear"]["w"].shape == (2 * D, D)
    assert jax.eval_shape(layer.apply, variables, x, PADDINGS).shape == (B, T, D)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"layer_order": "mhsa_conv"}, r"layer_order is 'mhsa_conv', expected one of \['mhsa'"),
        ({"model_dims": 0}, "model_dims is 0, expected at least 1"),
        ({"input_dims": 0}, "input_dims is 0, expected at least 1"),
        (
            {"fflayer_weight_sharing": True, "fflayer_start_tpl": None},
            "fflayer_weight_sharing = True needs a fflayer_start_tpl",
        ),
        (
            {"fflayer_weight_sharing": True, "input_dims": D + 1},
            f"input_dims = {D + 1} is not model_dims = {D}, which needs",
        ),
        (
            {"dropout_prob": 0.1, "atten_dropout": 0.2},
            "dropout_prob = 0.1 contradicts atten_dropout = 0.2. Set one of them to None",
        ),
        ({"ffn_relu_dropout": 1.0}, "ffn_relu_dropout is 1.0, expected a probability"),
        ({"paddings": jnp.zeros([B])}, rf"inputs have shape .*paddings have shape \({B},\)"),
        ({"inputs": normal(B, T, D + 1)}, rf"inputs have shape \({B}, {T}, {D + 1}\)"),
    ],
)
def test_errors_of_the_conformer(fields, text):
    call = {"inputs": X, "paddings": PADDINGS}
    call |= {name: fields.pop(name) for name in call if name in fields}
    with pytest.raises(ValueError, match=f"Conformer 'layer': {text}"):
        build(conformers.Conformer, **{**SMALL, **fields}).init(jax.random.key(0), **call)


@pytest.mark.parametrize("fields", [{"layer_order": "conv"}, {"trans_atten_tpl": None}])
def test_a_mask_without_attention_is_refused(fields):
    layer = build(conformers.Conformer, **SMALL, **fields)
    with pytest.raises(RuntimeError, match="Conformer 'layer': atten_mask is given, but there is"):
        layer.init(jax.random.key(0), X, PADDINGS, jnp.zeros([1, 1, T, T]))

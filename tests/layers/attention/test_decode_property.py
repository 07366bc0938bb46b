"""Property: cached decoding gives what the full forward pass gives, for every attention and option.

A prompt of P tokens fills the cache, which then grows to T; each further token is fed to
`extend_step`, and its output is compared with the column of a call over all T tokens.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import base_layer, decoder_utils, pax_fiddle
from praxis.layers import attentions, grouped_query_attention, multi_query_attention, normalizations
from praxis.layers.attention import masks

BATCH, LENGTH, DIMS = 2, 7, 6
QK_NORM = (normalizations.RmsNorm, {})
RELATIVE_BIAS = (
    attentions.RelativeBias,
    {"relative_attention_num_buckets": 4, "relative_attention_max_distance": 5},
)


@st.composite
def common_options(draw):
    """Fields that `DotProductAttention` and its multi-query form share."""
    num_heads = draw(st.sampled_from([1, 2, 6]))
    fields = {
        "input_dim": DIMS,
        "hidden_dim": 12,
        "num_heads": num_heads,
        "dim_per_head": draw(st.sampled_from([None, 4])),
        "use_bias": draw(st.booleans()),
        "use_rotary_position_emb": draw(st.booleans()),
        "scale_logits_by_head_dims": draw(st.booleans()),
        "atten_logit_cap": draw(st.sampled_from([0.0, 1.5])),
        "attention_extra_logit": draw(st.sampled_from([None, 0.5])),
        "zero_fully_masked": draw(st.booleans()),
        "implementation": draw(st.sampled_from(["auto", "blockwise"])),
        "decode_cache_dtype": draw(st.sampled_from([None, None, jnp.bfloat16, jnp.int8])),
    }
    # Templates are made later: configs draw random numbers of their own, which hypothesis refuses.
    fields["ln_tpl"] = draw(st.sampled_from([None, QK_NORM]))
    fields["relative_bias_tpl"] = draw(st.sampled_from([None, RELATIVE_BIAS]))
    return fields


@st.composite
def dot_product(draw):
    fields = draw(common_options())
    fields["combine_qkv"] = draw(st.booleans())
    fields["internal_enable_per_dim_scale"] = draw(st.booleans())
    fields["dconv_qkv"] = draw(st.booleans())
    cls = attentions.DotProductAttention
    if not fields["dconv_qkv"] and fields["relative_bias_tpl"] is None and draw(st.booleans()):
        cls = attentions.DotProductAttentionWithLPB
    return cls, fields


@st.composite
def relative(draw):
    """Attention with relative positions, and local attention of all kinds."""
    fields = draw(common_options())
    cls = draw(
        st.sampled_from(
            [
                attentions.DotProductAttentionXL,
                attentions.LocalSelfAttention,
                attentions.LocalSelfAttentionXL,
                attentions.LocalSelfAttentionRelativeBias,
                attentions.LocalSelfAttentionAlibi,
            ]
        )
    )
    fields["combine_qkv"] = draw(st.booleans())
    if cls in (attentions.DotProductAttentionXL, attentions.LocalSelfAttentionXL):
        fields["rel_pos_emb_dim"] = 4
    if cls is attentions.DotProductAttentionXL:
        fields["dconv_qkv"] = draw(st.booleans())
        return cls, fields
    fields["left_context"] = draw(st.integers(1, LENGTH))
    fields["right_context"] = 0
    if draw(st.booleans()):
        fields["block_size"] = draw(st.integers(max(1, fields["left_context"] - 1), LENGTH + 1))
    fields["simulated"] = draw(st.booleans())
    fields["decode_cache_window_only"] = draw(st.booleans())
    fields["dconv_qkv"] = not fields["decode_cache_window_only"] and draw(st.booleans())
    return cls, fields


@st.composite
def multi_query(draw):
    fields = draw(common_options())
    heads = fields["num_heads"]
    fields["num_kv_heads"] = draw(st.sampled_from([k for k in (1, 2, 3, 6) if heads % k == 0]))
    fields["local_window_size"] = draw(st.sampled_from([None, (2, 0)]))
    return multi_query_attention.MultiQueryDotProductAttention, fields


@st.composite
def grouped_query(draw):
    heads = draw(st.sampled_from([1, 2, 6]))
    return grouped_query_attention.GroupedQueryAttention, {
        "input_dim": DIMS,
        "hidden_dim": 12,
        "num_heads": heads,
        "num_kv_heads": draw(st.sampled_from([k for k in (1, 2, 3, 6) if heads % k == 0])),
        "dim_per_head": 4,
        "use_bias": draw(st.booleans()),
        "atten_logit_cap": draw(st.sampled_from([0.0, 1.5])),
        "rope_min_max_timescales": draw(st.sampled_from([None, (1, 100)])),
        "implementation": draw(st.sampled_from(["auto", "blockwise"])),
    }


def built(cls, fields, fprop_dtype):
    """The layer with templates in place of their descriptions."""
    fields = {
        name: pax_fiddle.Config(value[0], **value[1]) if name.endswith("_tpl") and value else value
        for name, value in fields.items()
    }
    return base_layer.instantiate(
        pax_fiddle.Config(cls, name="attention", fprop_dtype=fprop_dtype, **fields)
    )


def scattered(variables):
    """Random values in place of initial ones, so that zeros and ones hide nothing."""
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(
        tree, [jnp.asarray(0.5 * rng.standard_normal(x.shape), x.dtype) for x in leaves]
    )


def compare(drawn, prompt_len, fprop_dtype, masked_out):
    """Steps from `prompt_len` on against one call; `masked_out` is the meaning of the mask."""
    cls, fields = drawn
    layer = built(cls, fields, fprop_dtype)
    x = jnp.asarray(np.random.default_rng(1).standard_normal([BATCH, LENGTH, DIMS]), fprop_dtype)
    position = jnp.broadcast_to(jnp.arange(LENGTH)[jnp.newaxis], [BATCH, LENGTH])
    causal = masks.causal_mask(jnp.zeros([1, LENGTH, 1]))  # [1, 1, T, T]
    if masked_out:
        causal = causal < 0

    variables = scattered(
        jax.eval_shape(
            lambda key: layer.init(key, x, x, x, causal, position, position), jax.random.key(0)
        )
    )

    @jax.jit
    def full(variables):
        return layer.apply(variables, x, x, x, causal, position, position)[0]

    @jax.jit
    def prefilled(variables):
        head, at = x[:, :prompt_len], position[:, :prompt_len]
        mask = causal[:, :, :prompt_len, :prompt_len]
        _, cache = layer.apply(
            variables, head, head, head, mask, at, at, mutable=[base_layer.DECODE_CACHE]
        )
        grow = decoder_utils.pad_state_fn(LENGTH - prompt_len)
        _, cache = layer.apply(
            {**variables, **cache},
            grow,
            method=layer.transform_decode_state,
            mutable=[base_layer.DECODE_CACHE],
        )
        return cache

    @jax.jit
    def step_fn(variables, cache, step):
        return layer.apply(
            {**variables, **cache},
            jnp.take(x, step, axis=1),
            atten_mask=jnp.take(causal, step, axis=2),
            time_step=step,
            segment_pos=jnp.take(position, step, axis=1),
            method=layer.extend_step,
            mutable=[base_layer.DECODE_CACHE],
        )

    def stepped(variables):
        cache, outputs = prefilled(variables), []
        for step in range(prompt_len, LENGTH):
            output, cache = step_fn(variables, cache, step)
            outputs.append(output)
        return jnp.stack(outputs, axis=1)

    want, got = full(variables)[:, prompt_len:], stepped(variables)
    assert got.dtype == want.dtype
    narrow = fprop_dtype == jnp.bfloat16 or layer.decode_cache_dtype is not None
    # bfloat16 keeps 8 bits and int8 rounds keys and values to 1/127 of their largest.
    tolerance = 0.1 if narrow else 2e-5
    scale = float(jnp.max(jnp.abs(want.astype(jnp.float32))))
    np.testing.assert_allclose(
        np.float32(got), np.float32(want), rtol=tolerance, atol=tolerance * max(1.0, scale)
    )


DRAW = {
    "prompt_len": st.integers(1, LENGTH - 1),
    "fprop_dtype": st.sampled_from([jnp.float32, jnp.bfloat16]),
}
FEW = settings(max_examples=3, deadline=None, derandomize=True)


@pytest.mark.slow
@FEW
@given(drawn=dot_product(), **DRAW)
def test_dot_product_attention_steps_equal_its_call(drawn, prompt_len, fprop_dtype):
    compare(drawn, prompt_len, fprop_dtype, masked_out=False)


@pytest.mark.slow
@settings(FEW, max_examples=6)
@given(drawn=relative(), **DRAW)
def test_relative_and_local_attention_steps_equal_their_calls(drawn, prompt_len, fprop_dtype):
    compare(drawn, prompt_len, fprop_dtype, masked_out=False)


@pytest.mark.slow
@FEW
@given(drawn=multi_query(), **DRAW)
def test_multi_query_attention_steps_equal_its_call(drawn, prompt_len, fprop_dtype):
    compare(drawn, prompt_len, fprop_dtype, masked_out=False)


@pytest.mark.slow
@FEW
@given(drawn=grouped_query(), **DRAW)
def test_grouped_query_attention_steps_equal_its_call(drawn, prompt_len, fprop_dtype):
    compare(drawn, prompt_len, fprop_dtype, masked_out=True)

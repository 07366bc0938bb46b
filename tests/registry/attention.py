"""Attention."""

import numpy as np

from praxis.layers import (
    attentions,
    gpu_fast_attention,
    grouped_query_attention,
    multi_query_attention,
    normalizations,
)
from registry.entry import EVEN, B, Config, D, F, H, N, S, T, V, add, causal, floats, ids, open_mask
from registry.linear import WIDE, WRONG_WIDTH, sharded

HEADS = {"input_dim": D, "num_heads": N, "dim_per_head": H}
WRONG_HEADS = {"inputs": floats(B, T, N, H + 1)}
add(Config(attentions.AttentionProjection, **HEADS), WIDE, wrong=WRONG_WIDTH)
add(
    Config(attentions.AttentionProjection, use_bias=False, attention_combine_dims=True, **HEADS),
    WIDE,
    "combined_no_bias",
    wrong=WRONG_WIDTH,
)
for nhd in (False, True):
    add(
        sharded(
            Config(
                attentions.AttentionProjection,
                is_output_projection=True,
                use_nhd_shape=nhd,
                **HEADS,
            ),
            wt=["mdl", None, "data"] if nhd else ["data", "mdl", None],
        ),
        {"inputs": floats(B, T, N, H)},
        "output_nhd" if nhd else "output",
        wrong=WRONG_HEADS,
    )
add(Config(attentions.CombinedQKVProjectionLayer, **HEADS), WIDE, wrong=WRONG_WIDTH)
add(
    Config(
        attentions.CombinedQKVProjectionLayer,
        use_bias=False,
        attention_combine_dims=True,
        **HEADS,
    ),
    WIDE,
    "combined_no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(attentions.PerDimScale, dim=H),
    {"inputs": floats(B, T, N, H)},
    wrong=WRONG_HEADS,
)

ATTENTION = {"input_dim": D, "hidden_dim": N * H, "num_heads": N}
ROW = floats(B, T, D)
SELF = {"query_vec": ROW, "key_vec": ROW, "value_vec": ROW, "atten_mask": causal()}
WRONG_MASK = {"atten_mask": causal(T + 1)}
add(
    sharded(Config(attentions.DotProductAttention, **ATTENTION), proj=["data", "mdl", None]),
    SELF,
    wrong={"query_vec": floats(B, T, D + 1)},
)
add(
    Config(
        attentions.DotProductAttention,
        use_bias=False,
        use_rotary_position_emb=True,
        dim_per_head=4,
        atten_logit_cap=3.0,
        internal_enable_per_dim_scale=False,
        output_proj_use_nhd_shape=True,
        ln_tpl=Config(normalizations.RmsNorm),
        **ATTENTION,
    ),
    SELF,
    "rotary_no_bias",
    wrong=WRONG_MASK,
)
add(
    Config(attentions.DotProductAttention, combine_qkv=True, atten_dropout_prob=0.3, **ATTENTION),
    SELF,
    "combined_dropout",
    streams=["random"],
    wrong=WRONG_MASK,
)
CROSS = {
    "query_vec": floats(B, T, D),
    "key_vec": floats(B, S, F),
    "value_vec": floats(B, S, V),
    "atten_mask": open_mask(),
}
add(
    Config(
        attentions.DotProductAttention,
        **{**ATTENTION, "input_dim": {"query": D, "key": F, "value": V}},
    ),
    CROSS,
    "cross",
    wrong={"value_vec": floats(B, S, D)},
)

add(
    Config(
        attentions.RelativeBias,
        num_heads=N,
        relative_attention_num_buckets=H + 1,
        relative_attention_max_distance=T,
    ),
    {"query_segment_pos": ids(B, T), "key_segment_pos": ids(B, S)},
    wrong={"query_segment_pos": None},
)
add(
    sharded(
        Config(attentions.CausalDepthwiseConv1D, kernel_size=2, hidden_dims=[N, H]),
        wt=["mdl", None],
    ),
    {"inputs": floats(B, T, N, H), "axis": 1, "segment_pos": ids(B, T)},
    wrong=WRONG_HEADS,
)
add(
    sharded(
        Config(
            attentions.DotProductAttention,
            dconv_qkv=True,
            dconv_kernel_size=2,
            relative_bias_tpl=Config(attentions.RelativeBias, relative_attention_num_buckets=H + 1),
            attention_extra_logit=0.5,
            implementation="blockwise",
            **ATTENTION,
        ),
        proj=["data", "mdl", None],
        dconv=["mdl", None],
    ),
    SELF,
    "dconv_bias_blockwise",
    wrong=WRONG_MASK,
)
add(Config(attentions.DotProductAttentionWithLPB, **ATTENTION), SELF, wrong=WRONG_MASK)
add(
    sharded(
        Config(attentions.DotProductAttentionXL, rel_pos_emb_dim=EVEN, **ATTENTION),
        proj=["data", "mdl", None],
    ),
    SELF,
    wrong=WRONG_MASK,
)
LOCAL = {"left_context": 3, "right_context": 1, **ATTENTION}
for local, fields in (
    (attentions.LocalSelfAttention, {"block_size": 3}),
    (attentions.LocalSelfAttentionXL, {"rel_pos_emb_dim": EVEN}),
    (attentions.LocalSelfAttentionRelativeBias, {}),
    (attentions.LocalSelfAttentionAlibi, {}),
):
    add(
        sharded(Config(local, **LOCAL, **fields), proj=["data", "mdl", None]),
        SELF,
        wrong=WRONG_MASK,
    )
add(
    Config(
        attentions.LocalSelfAttention,
        simulated=True,
        relative_bias_tpl=Config(attentions.RelativeBias),
        **LOCAL,
    ),
    SELF,
    "simulated_bias",
    wrong=WRONG_MASK,
)
add(
    Config(gpu_fast_attention.GpuCudnnFusedDotProductAttention, is_causal=True, **ATTENTION),
    SELF,
    wrong=WRONG_MASK,
)

add(
    sharded(
        Config(multi_query_attention.OneHeadedAttentionProjection, input_dim=D, output_dim=H),
        wt=["data", "mdl"],
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    sharded(
        Config(multi_query_attention.MultiQueryDotProductAttention, **ATTENTION),
        proj=["data", "mdl", None],
        proj_headless=["data", None],
    ),
    SELF,
    wrong={"query_vec": floats(B, T, D + 1)},
)
add(
    Config(
        multi_query_attention.MultiQueryDotProductAttention,
        num_kv_heads=2,
        use_bias=False,
        use_rotary_position_emb=True,
        dim_per_head=4,
        atten_logit_cap=3.0,
        local_window_size=(2, 0),
        output_proj_use_nhd_shape=True,
        relative_bias_tpl=Config(attentions.RelativeBias),
        ln_tpl=Config(normalizations.RmsNorm),
        **{**ATTENTION, "hidden_dim": 16, "num_heads": 4},
    ),
    SELF,
    "grouped_rotary_window_no_bias",
    wrong=WRONG_MASK,
)
add(
    Config(
        multi_query_attention.MultiQueryDotProductAttentionLPB,
        atten_dropout_prob=0.3,
        **ATTENTION,
    ),
    SELF,
    "dropout",
    streams=["random"],
    wrong=WRONG_MASK,
)
GROUPED = {"input_dim": D, "num_heads": 4, "dim_per_head": 4}
HIDDEN = {**SELF, "atten_mask": np.triu(np.ones([T, T], bool), 1)[np.newaxis, np.newaxis]}
WRONG_HIDDEN = {"atten_mask": np.zeros([1, 1, T, T + 1], bool)}
add(
    sharded(
        Config(grouped_query_attention.GroupedQueryAttention, num_kv_heads=2, **GROUPED),
        dnh=["data", "mdl", None],
    ),
    HIDDEN,
    wrong=WRONG_HIDDEN,
)
add(
    sharded(
        Config(
            grouped_query_attention.GroupedQueryAttention,
            rope_min_max_timescales=(1, 100),
            use_bias=False,
            atten_dropout_prob=0.3,
            **GROUPED,
        ),
        dnh=["data", "mdl", None],
        dkh=[None, None, "mdl"],
    ),
    HIDDEN,
    "one_head_rope_dropout_no_bias",
    streams=["random"],
    wrong=WRONG_HIDDEN,
)
add(
    Config(
        gpu_fast_attention.GpuCudnnFusedGroupedQueryAttention,
        is_causal=True,
        num_kv_heads=2,
        **GROUPED,
    ),
    HIDDEN,
    wrong=WRONG_HIDDEN,
)

"""Transformer layers and stacks."""

from typing import Any

import numpy as np

from praxis.layers import (
    activations,
    linears,
    normalizations,
    repeats,
    transformers,
)
from registry.entry import (
    EVEN,
    HIDES,
    B,
    Config,
    D,
    F,
    N,
    S,
    T,
    add,
    causal,
    floats,
    open_mask,
    paddings,
)
from registry.linear import MESH, WIDE, WRONG_WIDTH, sharded

FFN = {"input_dims": D, "hidden_dims": F}
ROWS = {"inputs": floats(B, T, D), "paddings": paddings()}
add(Config(transformers.TransformerFeedForward, **FFN), ROWS, wrong=WRONG_WIDTH)
add(
    Config(
        transformers.TransformerFeedForward,
        use_gated_activation=True,
        has_bias=False,
        activation_tpl=Config(activations.SiLU),
        ln_tpl=Config(normalizations.RmsNorm),
        **FFN,
    ),
    ROWS,
    "gated_no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(
        transformers.TransformerFeedForward,
        residual_dropout_prob=0.3,
        relu_dropout_prob=0.3,
        residual_droppath_prob=0.3,
        norm_policy="primer_hybrid",
        **FFN,
    ),
    ROWS,
    "dropout_hybrid",
    streams=["random"],
    wrong=WRONG_WIDTH,
)

EXPERTS = {"num_experts": 3, "num_groups": 2, **FFN}
add(Config(transformers.TransformerFeedForwardMoe, **EXPERTS), ROWS, wrong=WRONG_WIDTH)
add(
    Config(
        transformers.TransformerFeedForwardMoe,
        gating_func="top_k",
        unadjusted_expert_capacity_factor=0.0,
        dispatch="sort",
        use_gated_activation=True,
        activation_tpl=Config(activations.SiLU),
        norm_policy="primer_hybrid",
        **EXPERTS,
    ),
    ROWS,
    "no_drops_gated_hybrid",
    wrong=WRONG_WIDTH,
)
add(
    Config(
        transformers.TransformerFeedForwardMoe,
        gating_func="expert_choice",
        padding_takes_places=False,
        dispatch="sort",
        moe_gating_embedding_level="sentence",
        **EXPERTS,
    ),
    ROWS,
    "expert_choice_sentence",
    wrong=WRONG_WIDTH,
)

# In blocks the width is a multiple of the number of heads.
BLOCK = {"input_dims": EVEN, "hidden_dims": F, "num_heads": N}
BLOCK_ROWS = {"inputs": floats(B, T, EVEN), "paddings": paddings()}
WRONG_BLOCK = {"inputs": floats(B, T, EVEN + 1)}
CROSS_ROWS = {"cross_inputs": floats(B, S, EVEN, seed=1)}
add(
    Config(transformers.Transformer, **BLOCK),
    {**BLOCK_ROWS, "attention_mask": causal()},
    wrong=WRONG_BLOCK,
)
add(
    Config(
        transformers.Transformer,
        use_cross_attention=True,
        norm_policy="primer_hybrid",
        residual_dropout_prob=0.3,
        **BLOCK,
    ),
    {
        **BLOCK_ROWS,
        **CROSS_ROWS,
        "attention_mask": causal(),
        "cross_attention_mask": open_mask(),
    },
    "cross_hybrid_dropout",
    streams=["random"],
    wrong=WRONG_BLOCK,
)


def stack(**fields: Any) -> Config:
    """A stack of one layer, or of `num_layers`."""
    sizes = {"num_layers": 1, "model_dims": EVEN, "hidden_dims": F, "num_heads": N}
    return Config(transformers.StackedTransformer, **{**sizes, **fields})


def rotary_gated(config: Config) -> Config:
    """Rotated attention, gated feed-forward without biases, RMS norm in all layers of a stack."""
    config.dim_per_head = 4
    block = config.transformer_layer_params_tpl
    block.tr_atten_tpl.set(use_rotary_position_emb=True, use_bias=False)
    block.tr_fflayer_tpl.set(use_gated_activation=True, has_bias=False)
    block.ln_tpl = Config(normalizations.RmsNorm)
    block.tr_fflayer_tpl.ln_tpl = Config(normalizations.RmsNorm)
    return config


add(stack(num_layers=2, mask_self_attention=True), BLOCK_ROWS, wrong=WRONG_BLOCK)
SEGMENTS = np.array([[1, 1, 2, 2, 2], [1, 1, 1, 1, 0]], np.int32)
POSITIONS = np.array([[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]], np.int32)
SEGMENT_MASK = np.where(
    SEGMENTS[:, np.newaxis, :, np.newaxis] == SEGMENTS[:, np.newaxis, np.newaxis, :], 0.0, HIDES
).astype(np.float32)
add(
    rotary_gated(stack(packed_input=True, mask_self_attention=True, remat=True)),
    {**BLOCK_ROWS, "segment_mask": SEGMENT_MASK, "segment_pos": POSITIONS},
    "packed_rotary_gated_remat",
    wrong=WRONG_BLOCK,
)
add(
    stack(use_cross_attention=True, dropout_prob=0.3, input_dropout_prob=0.3),
    {**BLOCK_ROWS, **CROSS_ROWS, "cross_paddings": paddings(length=S)},
    "cross_dropout",
    streams=["random"],
    wrong=WRONG_BLOCK,
)
add(
    Config(
        transformers.StackedTransformerRepeated,
        block=stack(mask_self_attention=True, residual_dropout_prob=0.3),
        x_times=3,
    ),
    BLOCK_ROWS,
    streams=["random"],
    wrong=WRONG_BLOCK,
)
add(
    Config(
        repeats.Repeat,
        sub_tpl=Config(linears.FeedForward, input_dims=D, output_dims=D),
        x_times=3,
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(
        repeats.Repeat,
        sub_tpl=Config(
            repeats.Repeat,
            sub_tpl=sharded(
                Config(linears.Linear, input_dims=D, output_dims=D), wt=["data", "mdl"]
            ),
            x_times=3,
        ),
        x_times=2,
        optimizer_dims_mapping=["data"],
        **MESH,
    ),
    WIDE,
    "nested_sharded",
    wrong=WRONG_WIDTH,
)

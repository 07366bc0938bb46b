"""Layers for speech: the Conformer, attention with a limited context, masks of spectrograms."""

from praxis.layers import conformers, normalizations, spectrum_augmenter
from registry.attention import ATTENTION, SELF, WRONG_MASK
from registry.entry import EVEN, B, Config, D, F, N, T, add, floats, paddings
from registry.linear import sharded

CONTEXT = {"left_context": 3, "right_context": 1}
for attention, fields in (
    (conformers.DotProductAttentionWithContext, {}),
    (conformers.DotProductAttentionWithContextXL, {"rel_pos_emb_dim": EVEN}),
):
    add(
        sharded(Config(attention, **CONTEXT, **ATTENTION, **fields), proj=["data", "mdl", None]),
        SELF,
        wrong=WRONG_MASK,
    )

FRAMES = {"inputs": floats(B, T, D), "paddings": paddings()}
WRONG_PADDINGS = {"paddings": paddings(length=T + 1)}
add(
    Config(
        conformers.SelfAttentionWithNormAndResidual,
        self_atten_tpl=Config(conformers.DotProductAttentionWithContext, **CONTEXT, **ATTENTION),
        norm_tpl=Config(normalizations.LayerNorm, dim=D),
        norm_policy="primer_hybrid",
        residual_weight=0.5,
        residual_dropout_prob=0.3,
    ),
    FRAMES,
    streams=["random"],
    wrong=WRONG_PADDINGS,
)
add(
    Config(
        conformers.Conformer,
        input_dims=EVEN,
        model_dims=EVEN,
        atten_num_heads=N,
        kernel_size=3,
        ffn_dim_multiplier=2,
        dropout_prob=0.3,
    ),
    {"inputs": floats(B, T, EVEN), "paddings": paddings()},
    streams=["random"],
    wrong={"inputs": floats(B, T, EVEN + 1)},
)
add(
    Config(
        spectrum_augmenter.SpectrumAugmenter,
        freq_mask_max_bins=7,
        time_mask_max_ratio=0.7,
        time_mask_count=2,
    ),
    {"inputs": floats(B, T, F), "paddings": paddings()},
    streams=["random"],
    wrong=WRONG_PADDINGS,
)

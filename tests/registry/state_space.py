"""State space layers, alone and in transformer layers."""

from praxis.layers import ssm, ssm_transformers
from registry.entry import B, Config, D, F, N, S, T, add, causal, floats, open_mask, paddings
from registry.linear import sharded

SIZES = {"nheads": 4, "dim": D, "l_max": S}
FRAMES = {"inputs": floats(B, T, D)}
TOO_LONG = {"inputs": floats(B, S + 1, D)}
add(
    sharded(Config(ssm.SSM, hippo_type="ss4d-1d-legs", **SIZES), wt=["data", "mdl"]),
    FRAMES,
    wrong=TOO_LONG,
)
add(Config(ssm.S5, use_input_matrix=True, **SIZES), FRAMES, wrong=TOO_LONG)

BLOCK = {"input_dims": D, "ssm_nheads": 4, "ssm_l_max": S}
BLOCK_ROWS = {"inputs": floats(B, T, D), "paddings": paddings(), "attention_mask": causal()}
WRONG_BLOCK = {"inputs": floats(B, T, D + 1)}
add(
    Config(ssm_transformers.SSMTransformer, hidden_dims=F, ssm_dim=D, **BLOCK),
    BLOCK_ROWS,
    wrong=WRONG_BLOCK,
)
add(
    Config(
        ssm_transformers.SSMGated,
        ssm_dim=F,
        use_cross_attention=True,
        num_heads=N,
        dim_per_head=3,
        norm_policy="primer_hybrid",
        **BLOCK,
    ),
    {**BLOCK_ROWS, "cross_inputs": floats(B, S, D, seed=1), "cross_attention_mask": open_mask()},
    wrong=WRONG_BLOCK,
)

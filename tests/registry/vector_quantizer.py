"""Vector quantizers."""

from praxis.layers import quantizer
from registry.entry import EVEN, B, Config, D, T, V, add, floats, paddings
from registry.linear import sharded

STATISTICS = ("codebook_coverage", "pplx", "entropy", "z_onehot")
ROWS = {"paddings": paddings()}
RANDOM = Config(
    quantizer.RandomVectorQuantizer,
    latent_dim=D,
    projection_dim=EVEN,
    num_groups=2,
    num_latent_classes=V,
    stack_ratio=2,
)
add(
    sharded(RANDOM, vgh=[None, None, "mdl"]),
    {"z": floats(B, T, D), **ROWS},
    has_idle_params=True,
    float32_outputs=[*STATISTICS, "codebook_num_covered_codes"],
    wrong={"z": floats(B, T, D + 1)},
)
add(
    Config(
        quantizer.VectorQuantizer, latent_dim=EVEN, num_groups=2, num_latent_classes=V, beta=0.3
    ),
    {"z": floats(B, T, EVEN), **ROWS},
    float32_outputs=[*STATISTICS, "codebook_num_covered_words", "loss"],
    wrong={"z": floats(B, T, D)},
)

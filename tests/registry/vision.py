"""Convolutions, poolings, augmentations and models of images."""

from praxis.layers import (
    augmentations,
    convolutions,
    mobilenet,
    poolings,
    resnets,
    transformers,
    vanillanets,
    vits,
)
from registry.entry import EVEN, B, Config, F, H, N, T, V, add, floats, ids, paddings

HEIGHT, WIDTH, CHANNELS = 6, 10, 3
IMAGE = floats(B, HEIGHT, WIDTH, CHANNELS)
WRONG_CHANNELS = {"inputs": floats(B, HEIGHT, WIDTH, CHANNELS + 1)}
ROWS_OF_IMAGE = paddings(length=HEIGHT)
CONV = {"filter_shape": (3, 5, CHANNELS, 4), "filter_stride": (2, 1)}

add(Config(convolutions.Conv2D, bias=True, **CONV), {"inputs": IMAGE}, wrong=WRONG_CHANNELS)
add(
    Config(convolutions.Conv2D, is_causal=True, tf_equivalent_padding=True, **CONV),
    {"inputs": IMAGE},
    variant="causal",
    wrong=WRONG_CHANNELS,
)
add(
    Config(convolutions.Conv3D, filter_shape=(2, 3, 3, 3, 4), filter_stride=(1, 2, 1)),
    {"inputs": floats(B, T, HEIGHT, WIDTH, CHANNELS)},
    wrong={"inputs": floats(B, T, HEIGHT, WIDTH, CHANNELS + 1)},
)
add(Config(convolutions.ConvBNAct, **CONV), {"inputs": IMAGE}, wrong=WRONG_CHANNELS)
add(
    Config(convolutions.ConvBNActWithPadding, **CONV),
    {"inputs": IMAGE, "paddings": ROWS_OF_IMAGE},
    wrong={"paddings": paddings(length=HEIGHT + 1)},
)
add(
    Config(convolutions.DepthwiseConv1D, filter_shape=(3, F, 1), bias=True),
    {"inputs": floats(B, T, F), "paddings": paddings()},
    wrong={"inputs": floats(B, T, F + 1)},
)
add(
    Config(convolutions.LightConv1D, input_dims=F, kernel_size=3),
    {"inputs": floats(B, T, F), "paddings": paddings()},
    wrong={"inputs": floats(B, T, F + 1)},
)

POOLING = {"window_shape": (2, 3), "window_stride": (2, 2)}
for pooling in ("MAX", "AVG"):
    add(
        Config(poolings.Pooling, pooling_type=pooling, **POOLING),
        {"inputs": IMAGE, "paddings": ROWS_OF_IMAGE},
        variant=pooling.lower(),
        wrong={"inputs": floats(B, HEIGHT, WIDTH)},
    )
add(
    Config(poolings.GlobalPooling, pooling_dims=[1, 2]),
    {"inputs": IMAGE},
    wrong="any array of enough axes can be pooled",
)
add(
    Config(poolings.Pooling1D, window=3, stride=2),
    {"inputs": floats(B, T, F), "paddings": paddings()},
    wrong={"paddings": paddings(length=T + 1)},
)

BLOCK = {"input_dim": CHANNELS, "output_dim": 8, "stride": 2}
for block in (
    resnets.ResNetBlock,
    resnets.ResNetBasicBlock,
    mobilenet.InvertedResidualBlock,
    vanillanets.VanillaBlock,
):
    add(Config(block, **BLOCK), {"inputs": IMAGE}, wrong=WRONG_CHANNELS)
STAGES = {"strides": (1, 2), "channels": (8, 16), "blocks": (1, 1), "kernels": (3, 3)}
for net in (resnets.ResNet, vanillanets.VanillaNet):
    add(Config(net, **STAGES), {"inputs": IMAGE}, wrong=WRONG_CHANNELS)
add(
    Config(
        mobilenet.MobileNet,
        strides=(1, 2),
        channels=(8, 16),
        expansions=(1, 2),
        output_channels=24,
        num_classes=V,
    ),
    {"inputs": IMAGE},
    wrong=WRONG_CHANNELS,
)

GRID, PATCH = (2, 3), 2
PATCHES = floats(B, GRID[0] * GRID[1], PATCH * PATCH * CHANNELS)
ENTRY = Config(
    vits.VitEntryLayers,
    pos_emb_shapes=GRID,
    patch_size=PATCH,
    input_dims=PATCH * PATCH * CHANNELS,
    output_dims=EVEN,
    prepend_cls_tokens=1,
)
EXIT = Config(vits.VitExitLayers, hidden_dim=EVEN, output_dim=V)
WRONG_PATCHES = {"inputs": floats(B, 6, PATCH * PATCH * CHANNELS + 1)}
add(ENTRY, {"inputs": PATCHES}, wrong=WRONG_PATCHES)
add(EXIT, {"inputs": floats(B, T, EVEN)}, wrong={"inputs": floats(B, T, EVEN + 1)})
add(
    Config(
        vits.VisionTransformer,
        entry_layers_tpl=ENTRY,
        transformer_layers_tpl=Config(
            transformers.StackedTransformer,
            model_dims=EVEN,
            hidden_dims=F,
            num_heads=N,
            dim_per_head=H,
            num_layers=2,
            mask_self_attention=False,
        ),
        exit_layers_tpl=EXIT,
    ),
    {"inputs": PATCHES},
    wrong=WRONG_PATCHES,
)

add(
    Config(augmentations.MaskedLmDataAugmenter, vocab_size=V, mask_token_id=0),
    {"inputs": ids(B, T), "paddings": paddings()},
    wrong={"paddings": paddings(length=T + 1)},
    streams=["random"],
    float32_outputs="all",
)
add(
    Config(augmentations.TemporalShifting, shift_range_ms=2.0, sample_rate=1000.0),
    {"features": floats(B, T, F), "paddings": paddings()},
    wrong={"paddings": paddings(length=T + 1)},
    streams=["random"],
)

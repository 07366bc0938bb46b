"""Networks, quantizers and losses for video."""

from praxis.layers.video import enc_dec_3dcnn, losses, quantizer, vqvae
from praxis.py_utils import NestedMap
from registry.entry import B, Config, add, floats

CHANNELS, FRAMES, HEIGHT, WIDTH = 2, 3, 5, 7
VIDEO = {"inputs": floats(B, FRAMES, HEIGHT, WIDTH, CHANNELS)}
WIDER = {"inputs": floats(B, FRAMES, HEIGHT, WIDTH, CHANNELS + 1)}
LATENTS = floats(B, FRAMES, 2, 3, 3)
# Two levels, and a step in time between them.
LEVELS = {
    "embedding_dim": 3,
    "filters": 2,
    "num_res_blocks": 1,
    "channel_multipliers": (1, 2),
    "temporal_downsample": (True,),
}
QUANTIZER_LOSSES = tuple(f"1/{name}_loss" for name in ("quantizer", "e_latent", "entropy"))

add(Config(enc_dec_3dcnn.CausalConv, filter_shape=(3, 3, 3, 2, 5)), VIDEO, wrong=WIDER)
add(Config(enc_dec_3dcnn.GroupNormSpatial, dim=2), VIDEO, wrong=WIDER)
add(
    Config(enc_dec_3dcnn.CondNormLayer, dim=2, emb_dim=3),
    {**VIDEO, "emb": floats(B, FRAMES, HEIGHT, WIDTH, 3, seed=1)},
    wrong={"emb": floats(B, FRAMES, HEIGHT, WIDTH, 5)},
)
add(Config(enc_dec_3dcnn.ResBlock, input_dim=2, output_dim=3), VIDEO, wrong=WIDER)
add(
    Config(enc_dec_3dcnn.BlurPool3D),
    VIDEO,
    wrong={"inputs": floats(B, HEIGHT, WIDTH, CHANNELS)},
)
add(Config(enc_dec_3dcnn.DiscriminatorResBlock, input_dim=2, output_dim=3), VIDEO, wrong=WIDER)
add(Config(vqvae.Encoder, input_dim=2, **LEVELS), VIDEO, wrong=WIDER)
add(
    Config(vqvae.Decoder, output_dim=2, **LEVELS),
    {"inputs": LATENTS},
    wrong={"inputs": floats(B, FRAMES, 2, 3, 5)},
)
add(
    Config(
        vqvae.Discriminator,
        input_dim=2,
        filters=2,
        channel_multipliers=(2,),
        num_frames=FRAMES,
        image_height=HEIGHT,
        image_width=WIDTH,
    ),
    VIDEO,
    wrong=WIDER,
)
add(
    Config(
        vqvae.VQVaeModel,
        encoder_tpl=Config(vqvae.Encoder, input_dim=2),
        decoder_tpl=Config(vqvae.Decoder, output_dim=2),
        **LEVELS,
    ),
    VIDEO,
    float32_outputs=QUANTIZER_LOSSES,
    wrong=WIDER,
)
add(
    Config(quantizer.LookupFreeQuantizer, embedding_dim=3),
    {"inputs": LATENTS},
    float32_outputs=QUANTIZER_LOSSES,
    wrong={"inputs": floats(B, FRAMES, 2, 3, 5)},
)
add(
    Config(quantizer.ScalarQuantizer, embedding_dim=3, dim_widths=(8, 5, 4)),
    {"inputs": LATENTS},
    float32_outputs=QUANTIZER_LOSSES,
    wrong={"inputs": floats(B, FRAMES, 2, 3, 5)},
)
add(
    Config(losses.VQGANLoss),
    {
        "predictions": NestedMap(
            reconstruction=floats(B, FRAMES, HEIGHT, WIDTH, CHANNELS),
            real_logits=floats(B, 1),
            fake_logits=floats(B, 1, seed=1),
            quantizer_loss=floats(),
        ),
        "input_batch": NestedMap(video=floats(B, FRAMES, HEIGHT, WIDTH, CHANNELS, seed=1)),
    },
    float32_outputs="all",
    wrong={"input_batch": NestedMap(video=floats(B, FRAMES, HEIGHT, WIDTH, CHANNELS + 1))},
)

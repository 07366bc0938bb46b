"""Encoder, decoder, discriminator and the whole autoencoder of video."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers.video import quantizer, vqvae

KEY = jax.random.PRNGKey(0)
# Three levels: the second step halves the frames, too.
LEVELS = {
    "embedding_dim": 3,
    "filters": 2,
    "num_res_blocks": 1,
    "channel_multipliers": (1, 1, 2),
    "temporal_downsample": (False, True),
}
VIDEO = jnp.float32(np.random.default_rng(0).standard_normal((2, 5, 8, 12, 3)))


def build(cls, **fields):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="net", **fields))


@pytest.fixture(scope="module")
def model():
    """A model, its variables and its methods compiled into one program."""
    layer = build(vqvae.VQVaeModel, **LEVELS)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: jnp.float32(0.3 * rng.standard_normal(leaf.shape)),
        jax.eval_shape(lambda: layer.init(KEY, VIDEO)),
    )

    def everything(variables, video):
        def call(method, *args):
            return layer.apply(variables, *args, method=method)

        output, result = layer.apply(variables, video)
        latents = call("encode_to_latents", video)
        ids = call("encode_to_indices", video)
        quantized, _ = call("encode", video)
        return {
            "output": output,
            "result": result,
            "latents": latents,
            "ids": ids,
            "quantized": quantized,
            "decode": call("decode", quantized),
            "decode_from_indices": call("decode_from_indices", ids.astype(jnp.int32)),
            "decode_from_latents": call("decode_from_latents", latents),
        }

    return layer, variables, jax.jit(everything)


def test_round_trips(model):
    """Behaviour "encode -> ids -> decode round trip" of the video layers, and their shapes."""
    _, variables, everything = model
    got = everything(variables, VIDEO)
    assert got["output"].shape == VIDEO.shape
    assert got["latents"].shape == got["quantized"].shape == (2, 3, 2, 3, 3)
    assert got["ids"].shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(got["ids"], got["result"].encoding_indices)
    np.testing.assert_array_equal(got["quantized"], np.where(got["latents"] >= 0, 1, -1))
    for name in ("decode", "decode_from_indices", "decode_from_latents"):
        np.testing.assert_allclose(got[name], got["output"], rtol=2e-5, atol=2e-5)


def test_no_frame_sees_later_ones(model):
    _, variables, everything = model
    changed = everything(variables, VIDEO.at[:, 3:].set(VIDEO[::-1, :2]))
    got = everything(variables, VIDEO)
    for name, frames in (("latents", 2), ("output", 3)):
        np.testing.assert_allclose(changed[name][:, :frames], got[name][:, :frames], atol=1e-5)
    assert not np.allclose(changed["latents"][:, 2], got["latents"][:, 2], atol=1e-3)


def test_children_and_their_order(model):
    _, variables, _ = model
    encoder, decoder = variables["params"]["encoder"], variables["params"]["decoder"]
    blocks = {f"res_blocks_{i}" for i in range(4)}
    assert set(encoder) == {
        *blocks,
        *("conv_first", "norm", "conv_last"),
        *(f"conv_downsample_layers_{i}" for i in range(2)),
    }
    assert set(decoder) == {
        *blocks,
        *("conv_first", "norm", "conv_last"),
        *(f"conv_upsample_layers_{i}" for i in range(2)),
        *(f"cond_norm_layers_{i}" for i in range(3)),
    }
    assert decoder["conv_upsample_layers_0"]["w"].shape == (3, 3, 3, 4, 4 * 2 * 4)
    assert decoder["conv_upsample_layers_1"]["w"].shape == (3, 3, 3, 2, 4 * 2)


def test_the_model_fills_in_fields_of_its_parts():
    layer = build(
        vqvae.VQVaeModel,
        **LEVELS | {"embedding_dim": 2},
        fprop_dtype=jnp.bfloat16,
        quantizer_tpl=pax_fiddle.Config(quantizer.ScalarQuantizer, dim_widths=(5, 4)),
    )
    variables = jax.eval_shape(lambda: layer.init(KEY, VIDEO))
    output, result = jax.eval_shape(layer.apply, variables, VIDEO)
    assert output.dtype == result.quantized.dtype == jnp.bfloat16
    assert result.quantized.shape == (2, 3, 2, 3, 2)
    assert variables["params"]["encoder"]["conv_first"]["w"].shape == (3, 3, 3, 3, 2)


@pytest.mark.parametrize(
    ("cls", "fields", "shape", "error"),
    [
        (vqvae.Encoder, {}, (1, 4, 8, 8, 3), "that is 4 frames, expected 1 [+] 2 [*] n"),
        (vqvae.Encoder, {}, (5, 8, 8, 3), r"\[B, T, H, W, C\] with C = input_dim = 3"),
        (vqvae.Encoder, {"conv_downsample": False}, (1, 1, 8, 8, 3), "conv_downsample is False"),
        (vqvae.Encoder, {"channel_multipliers": ()}, (1, 1, 8, 8, 3), r"channel_multipliers is"),
        (
            vqvae.Decoder,
            {"temporal_downsample": (True,)},
            (1, 1, 8, 8, 3),
            r"temporal_downsample is \(True,\), expected 2 booleans",
        ),
        (vqvae.Decoder, {}, (1, 1, 8, 8, 5), "C = embedding_dim = 3"),
    ],
)
def test_networks_refuse(cls, fields, shape, error):
    layer = build(cls, **LEVELS | fields)
    with pytest.raises(ValueError, match=f"{cls.__name__} 'net': .*{error}"):
        jax.eval_shape(lambda: layer.init(KEY, jnp.ones(shape)))


def test_discriminator_gives_a_logit_for_each_video():
    layer = build(
        vqvae.Discriminator,
        filters=2,
        channel_multipliers=(1, 2),
        num_frames=5,
        image_height=8,
        image_width=6,
    )
    video = jnp.ones([2, 5, 8, 6, 3])
    variables = jax.eval_shape(lambda: layer.init(KEY, video))
    assert jax.eval_shape(layer.apply, variables, video).shape == (2, 1)
    params = variables["params"]
    # 5, 8 and 6 are halved twice, and rounded up.
    assert params["proj"]["mlp_layers_0"]["linear"]["w"].shape == (2 * 2 * 2 * 4, 4)
    assert set(params) == {"conv_first", "res_blocks_0", "res_blocks_1", "conv_last", "proj"}
    with pytest.raises(
        ValueError, match=r"'net': .*\(2, 4, 8, 6, 3\).*image_width\) = \(5, 8, 6\)"
    ):
        jax.eval_shape(lambda: layer.init(KEY, jnp.ones([2, 4, 8, 6, 3])))


def test_discriminator_needs_blocks():
    layer = build(vqvae.Discriminator, channel_multipliers=())
    with pytest.raises(ValueError, match=r"'net': channel_multipliers is \(\), expected one"):
        jax.eval_shape(lambda: layer.init(KEY, VIDEO))

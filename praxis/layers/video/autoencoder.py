"""Autoencoder of video with quantized latents."""

from collections.abc import Sequence

from jaxtyping import Array, Float, Int, Integer

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers.video.decoder import Decoder
from praxis.layers.video.encoder import Encoder
from praxis.layers.video.lookup_free import LookupFreeQuantizer

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class VQVaeModel(base_layer.BaseLayer):
    """Encodes video, quantizes the latents and decodes them.

    Van den Oord et al., "Neural Discrete Representation Learning", 2017, arXiv:1711.00937; with the
    networks and the quantizer of Yu et al., 2023, arXiv:2310.05737. Shapes: E is `embedding_dim`,
    [B, T, H, W, C] is the video and [B, t, h, w, E] are the latents, see `Encoder`.

    Attributes:
      embedding_dim: E.
      filters: Channels of encoder and decoder.
      num_res_blocks: Of both.
      channel_multipliers: Of both.
      temporal_downsample: Of both.
      encoder_tpl: Config of the encoder. The fields above are filled in, and the dtypes.
      decoder_tpl: Config of the decoder, likewise.
      quantizer_tpl: Config of the quantizer. E and the dtypes are filled in.

    Variables:
      encoder, decoder, quantizer: as in their configs

    Raises:
      ValueError: during setup, if the fields do not go together; in calls, for inputs of another
        shape.
    """

    embedding_dim: int = 8
    filters: int = 32
    num_res_blocks: int = 4
    channel_multipliers: Sequence[int] = (1, 2, 2, 4)
    temporal_downsample: Sequence[bool] = (False, True, True)
    encoder_tpl: LayerTpl = template_field(Encoder)
    decoder_tpl: LayerTpl = template_field(Decoder)
    quantizer_tpl: LayerTpl = template_field(LookupFreeQuantizer)

    def setup(self) -> None:
        shared = {
            "embedding_dim": self.embedding_dim,
            "dtype": self.dtype,
            "fprop_dtype": self.fprop_dtype,
        }
        network = {
            "filters": self.filters,
            "num_res_blocks": self.num_res_blocks,
            "channel_multipliers": tuple(self.channel_multipliers),
            "temporal_downsample": tuple(self.temporal_downsample),
        }
        self.create_child("encoder", self.encoder_tpl.clone().set(**shared, **network))
        self.create_child("decoder", self.decoder_tpl.clone().set(**shared, **network))
        self.create_child("quantizer", self.quantizer_tpl.clone().set(**shared))

    def __call__(
        self, inputs: Float[Array, "..."]
    ) -> tuple[Float[Array, "B T H W C"], py_utils.NestedMap]:
        """Encodes and decodes video [B, T, H, W, C]; returns it and what the quantizer says."""
        latents, result = self.encode(inputs)
        return self.decode(latents), result

    def encode(
        self, inputs: Float[Array, "..."]
    ) -> tuple[Float[Array, "B t h w E"], py_utils.NestedMap]:
        """Returns quantized latents, and what the quantizer says."""
        return self.quantizer(self.encode_to_latents(inputs))

    def encode_to_indices(self, inputs: Float[Array, "..."]) -> Integer[Array, "B t h w ..."]:
        """Returns the indices of the quantized latents."""
        _, result = self.encode(inputs)
        return result.encoding_indices

    def encode_to_latents(self, inputs: Float[Array, "..."]) -> Float[Array, "B t h w E"]:
        """Returns latents that are not quantized yet."""
        return self.encoder(inputs)

    def decode(self, inputs: Float[Array, "..."]) -> Float[Array, "B T H W C"]:
        """Returns the video of quantized latents [B, t, h, w, E]."""
        return self.decoder(inputs)

    def decode_from_indices(self, ids: Int[Array, "..."]) -> Float[Array, "B T H W C"]:
        """Returns the video of the indices of latents."""
        return self.decode(self.quantizer.decode_ids(ids))

    def decode_from_latents(self, latents: Float[Array, "..."]) -> Float[Array, "B T H W C"]:
        """Quantizes latents [B, t, h, w, E], and returns their video."""
        quantized, _ = self.quantizer(latents)
        return self.decode(quantized)

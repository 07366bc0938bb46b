"""Networks of a video autoencoder, gathered under their public path."""

from praxis.layers.video.autoencoder import VQVaeModel
from praxis.layers.video.decoder import Decoder
from praxis.layers.video.discriminator import Discriminator
from praxis.layers.video.encoder import Encoder
from praxis.pax_fiddle import template_field

__all__ = ["Decoder", "Discriminator", "Encoder", "VQVaeModel", "template_field"]

"""Networks without shortcuts, gathered under their public path."""

from praxis.layers.model.vanillanets import VanillaBlock, VanillaNet, tailored_lrelu
from praxis.pax_fiddle import template_field

__all__ = ["VanillaBlock", "VanillaNet", "tailored_lrelu", "template_field"]

"""MobileNet, gathered under its public path."""

from praxis.base_layer import WeightInit
from praxis.layers.model.mobilenet import InvertedResidualBlock, MobileNet
from praxis.pax_fiddle import template_field

__all__ = ["InvertedResidualBlock", "MobileNet", "WeightInit", "template_field"]
